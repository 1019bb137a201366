"""A run's folder: whole files or none, names that never collide, errors that say what to do."""

import errno
import json
import os
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqclip.errors import OutputError, OutputExists
from vqclip.files.atomic import refused, write_atomic
from vqclip.runs.run_dir import RunDir, slugify

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="uses /dev/full or /proc")
needs_a_user = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")


def failing(error):
    """Return a function that raises, whatever it is given."""

    def fail(*_args, **_more):
        raise error

    return fail


def full_disk():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def files(folder):
    """List what is there, but for the lock."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock")


# writing a file


def test_a_written_file_holds_what_was_given(tmp_path):
    write_atomic(tmp_path / "a.bin", b"\0\r\nwhole")
    assert (tmp_path / "a.bin").read_bytes() == b"\0\r\nwhole"


def test_a_written_file_replaces_the_old_one(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"a much longer old content")
    write_atomic(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_writing_leaves_nothing_else_beside_the_file(tmp_path):
    write_atomic(tmp_path / "a.bin", b"new")
    assert files(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("place", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [full_disk(), KeyboardInterrupt()], ids=["full disk", "interrupt"])
def test_a_write_that_fails_leaves_the_old_file_intact(tmp_path, monkeypatch, place, error):
    (tmp_path / "a.bin").write_bytes(b"old")
    monkeypatch.setattr(place, failing(error))
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_atomic(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"old"


@pytest.mark.parametrize("place", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [full_disk(), KeyboardInterrupt()], ids=["full disk", "interrupt"])
def test_a_write_that_fails_leaves_no_part_of_a_new_file(tmp_path, monkeypatch, place, error):
    monkeypatch.setattr(place, failing(error))
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_atomic(tmp_path / "a.bin", b"new")
    assert files(tmp_path) == []


def test_the_data_is_on_the_disk_before_the_name_points_to_it(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr("os.fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr("os.replace", lambda old, new: (calls.append("replace"), replace(old, new)))
    write_atomic(tmp_path / "a.bin", b"new")
    assert calls == ["fsync", "replace", "fsync"]  # the last is of the folder


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_a_files_mode_follows_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a.bin", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == mode


def test_writing_leaves_the_umask_as_it_was(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a.bin", b"new")
        after = os.umask(0o027)
    finally:
        os.umask(before)
    assert after == 0o027


def test_a_full_disk_is_an_output_error_of_code_8(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", failing(full_disk()))
    with pytest.raises(OutputError) as caught:
        write_atomic(tmp_path / "a.bin", b"new")
    assert caught.value.exit_code == 8


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_called_full(number):
    assert "full" in refused(Path("a.png"), OSError(number, "?")).what


def test_another_refusal_gives_the_systems_reason():
    assert os.strerror(errno.EROFS) in refused(Path("a.png"), OSError(errno.EROFS, os.strerror(errno.EROFS))).what


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_refusal_names_the_file_and_says_what_to_do(number):
    error = refused(Path("a.png"), OSError(number, "?"))
    assert "a.png" in error.what
    assert error.hint


@pytest.mark.parametrize("name", ["missing/a.bin", "a-file/a.bin"])
def test_writing_below_what_is_no_folder_is_an_output_error(tmp_path, name):
    (tmp_path / "a-file").touch()
    with pytest.raises(OutputError):
        write_atomic(tmp_path / name, b"new")


# names


@pytest.mark.parametrize(
    ("prompt", "slug"),
    [
        ("a red heart", "a-red-heart"),
        ("  A Red   HEART!  ", "a-red-heart"),
        ("a castle | a night sky:0.5", "a-castle-a-night-sky-0-5"),
        ("snake_case", "snake-case"),
        ("Ein Märchen", "ein-märchen"),
        ("赤い心", "赤い心"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\Windows\\con", "c-windows-con"),
        ("a\nb\tc", "a-b-c"),
        ("-o", "o"),
    ],
)
def test_a_slug_joins_the_words_of_a_prompt_by_dashes(prompt, slug):
    assert slugify(prompt) == slug


@pytest.mark.parametrize("prompt", ["", "   ", "❤️🔥", "...", "..", "/", "\ud800"])
def test_a_prompt_without_letters_is_untitled(prompt):
    assert slugify(prompt) == "untitled"


def test_a_long_slug_is_cut_between_characters_not_inside_one():
    assert slugify("ä" * 40, limit=9) == "ä" * 4


def test_a_cut_slug_does_not_end_with_a_dash():
    assert slugify("abcd efgh", limit=5) == "abcd"


@given(st.text(max_size=200))
def test_any_prompt_gives_one_short_safe_part_of_a_path(prompt):
    slug = slugify(prompt)
    assert 1 <= len(slug.encode()) <= 48
    assert Path(slug).name == slug
    assert all(c.isalnum() or c == "-" for c in slug)
    assert not slug.startswith("-")


# making a run directory


def test_a_run_directory_has_the_name_it_was_given(tmp_path):
    assert RunDir.create(tmp_path / "runs", "a-heart-7").path == tmp_path / "runs" / "a-heart-7"


def test_a_taken_name_is_counted_up(tmp_path):
    names = [RunDir.create(tmp_path, "a-heart-7").path.name for _ in range(3)]
    assert names == ["a-heart-7", "a-heart-7-2", "a-heart-7-3"]


def test_a_name_that_a_file_has_is_taken_too(tmp_path):
    (tmp_path / "a-heart-7").write_text("mine")
    assert RunDir.create(tmp_path, "a-heart-7").path.name == "a-heart-7-2"


def test_a_second_run_touches_nothing_of_the_first(tmp_path):
    first = RunDir.create(tmp_path, "a-heart-7")
    first.write_json({"status": "done"})
    first.write_final(b"first")
    before = {name: (first.path / name).read_bytes() for name in ("run.json", "final.png")}
    second = RunDir.create(tmp_path, "a-heart-7")
    second.write_json({"status": "running"})
    second.write_final(b"second")
    assert {name: (first.path / name).read_bytes() for name in before} == before


def test_parents_of_the_runs_folder_are_made(tmp_path):
    assert RunDir.create(tmp_path / "far" / "away", "x").path.is_dir()


def test_a_runs_folder_that_is_a_file_is_an_output_error_of_code_8(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(OutputError) as caught:
        RunDir.create(tmp_path / "runs", "x")
    assert caught.value.exit_code == 8


def test_a_runs_folder_below_a_file_is_an_output_error(tmp_path):
    (tmp_path / "a-file").touch()
    with pytest.raises(OutputError):
        RunDir.create(tmp_path / "a-file" / "runs", "x")


@needs_a_user
def test_a_read_only_runs_folder_is_an_output_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError):
        RunDir.create(tmp_path, "x")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path, monkeypatch, number):
    monkeypatch.setattr("os.mkdir", failing(OSError(number, os.strerror(number))))
    with pytest.raises(OutputError):
        RunDir.create(tmp_path, "x")


# what is in it


@pytest.fixture
def run(tmp_path):
    run = RunDir.create(tmp_path, "x-1")
    yield run
    run.close()


def test_run_json_names_its_schema(run):
    run.write_json({"status": "running"})
    assert json.loads((run.path / "run.json").read_text())["schema"] == "vqclip-run/1"


def test_run_json_keeps_the_record(run):
    record = {"status": "running", "settings": {"prompt": 'ein "Herz" 赤\n', "size": [64, 32], "noise": 0.1}}
    run.write_json(record)
    read = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    assert {key: read[key] for key in record} == record


def test_run_json_is_replaced(run):
    run.write_json({"status": "running", "more": 1})
    run.write_json({"status": "done"})
    assert json.loads((run.path / "run.json").read_text()) == {"schema": "vqclip-run/1", "status": "done"}


@pytest.mark.parametrize(("step", "name"), [(0, "000000.png"), (70, "000070.png"), (100_000, "100000.png")])
def test_a_frame_is_named_by_its_step(run, step, name):
    run.write_frame(step, b"png")
    assert (run.path / "frames" / name).read_bytes() == b"png"


def test_frames_sort_by_step(run):
    for step in (100, 0, 20, 1000):
        run.write_frame(step, b"png")
    assert [int(path.stem) for path in sorted((run.path / "frames").iterdir())] == [0, 20, 100, 1000]


def test_the_latest_picture_is_the_last_frame(run):
    run.write_frame(0, b"first")
    run.write_frame(10, b"second")
    assert (run.path / "latest.png").read_bytes() == b"second"


def test_the_final_picture_takes_the_place_of_the_latest(run):
    run.write_frame(0, b"first")
    run.write_final(b"final")
    assert files(run.path) == ["final.png", "frames", "frames/000000.png"]


def test_a_folder_where_the_latest_picture_was_is_an_error_of_the_disk(run):
    (run.path / "latest.png").mkdir()
    with pytest.raises(OutputError, match="latest"):
        run.write_final(b"final")
    assert (run.path / "final.png").read_bytes() == b"final"


def test_the_final_picture_can_be_written_without_any_frame(run):
    assert run.write_final(b"final").read_bytes() == b"final"


def test_metrics_are_one_json_line_a_step(run):
    records = [{"step": 1, "prompt": 0.5}, {"step": 2, "prompt": 0.25}]
    for record in records:
        run.add_metrics(record)
    assert [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()] == records


def test_a_line_of_metrics_can_be_read_while_the_run_goes_on(run):
    run.add_metrics({"step": 1})
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_metrics_go_on_where_they_were_closed(run):
    run.add_metrics({"step": 1})
    run.close()
    run.add_metrics({"step": 2})
    assert len((run.path / "metrics.jsonl").read_text().splitlines()) == 2


def test_closing_twice_does_no_harm(run):
    run.add_metrics({"step": 1})
    run.close()
    run.close()


@needs_linux
def test_metrics_on_a_full_disk_are_an_output_error_of_code_8(tmp_path):
    run = RunDir(tmp_path)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    try:
        with pytest.raises(OutputError) as caught:
            run.add_metrics({"step": 1})
        assert caught.value.exit_code == 8
    finally:
        discard(run)


@needs_linux
def test_closing_metrics_on_a_full_disk_is_no_error_of_another_kind(tmp_path):
    run = RunDir(tmp_path)
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    try:
        with pytest.raises(OutputError):
            run.add_metrics({"step": 1})
        try:
            run.close()
        except OSError as error:
            pytest.fail(f"close() let {error!r} through; only OutputError says what to do")
        except OutputError:
            pass
    finally:
        discard(run)


def discard(run):
    """Close what is left open, so that no test fails for another's handle."""
    try:
        run.close()
    except (OSError, OutputError):
        run._metrics = None


@pytest.mark.parametrize("write", ["write_final", "write_frame"])
def test_a_picture_on_a_full_disk_is_an_output_error(run, monkeypatch, write):
    monkeypatch.setattr("os.fsync", failing(full_disk()))
    arguments = (b"png",) if write == "write_final" else (3, b"png")
    with pytest.raises(OutputError):
        getattr(run, write)(*arguments)


def test_a_full_disk_keeps_the_frames_that_were_written(run, monkeypatch):
    run.write_frame(0, b"first")
    monkeypatch.setattr("os.fsync", failing(full_disk()))
    with pytest.raises(OutputError):
        run.write_frame(10, b"second")
    assert files(run.path) == ["frames", "frames/000000.png", "latest.png"]


def test_a_new_file_appears_on_a_disk_without_hard_links(tmp_path, monkeypatch):
    def no_links(*_args):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    write_atomic(tmp_path / "a.png", b"new", replace=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_file_that_must_be_new_is_never_replaced(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(OutputExists):
        write_atomic(tmp_path / "a.png", b"new", replace=False)
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
