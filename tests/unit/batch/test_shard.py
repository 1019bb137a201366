"""Parts of a batch: which rows are whose, and several processes in one folder."""

import pytest

from vqclip.batch.manifest import Manifest, read_manifest
from vqclip.batch.rows import Row
from vqclip.batch.shard import Shard, SharedManifest
from vqclip.config.resolve import resolve
from vqclip.errors import RunLocked, UsageError
from vqclip.files.atomic import part_beside


def slurm(number, count, least, most, step):
    names = ("ID", "COUNT", "MIN", "MAX", "STEP")
    values = zip(names, (number, count, least, most, step), strict=True)
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values}


@pytest.mark.parametrize(
    ("text", "environ", "shard"),
    [
        ("1/4", {}, (1, 4)),
        (" 4 / 4 ", {}, (4, 4)),
        ("slurm", slurm(0, 3, 0, 2, 1), (1, 3)),
        ("slurm", slurm(9, 3, 7, 9, 1), (3, 3)),
        ("slurm", slurm(4, 3, 0, 4, 2), (3, 3)),
        ("slurm", slurm(12, 4, 0, 14, 4), (4, 4)),
        ("slurm", slurm(5, 1, 5, 5, 1), (1, 1)),
    ],
)
def test_a_part_is_read(text, environ, shard):
    read = Shard.parse(text, environ)
    assert (read.number, read.count) == shard


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", "slurm", ""])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(UsageError):
        Shard.parse(text, {})


@pytest.mark.parametrize("task", [1, 3, 7])
def test_an_array_with_gaps_is_refused_by_each_of_its_tasks(task):
    with pytest.raises(UsageError) as refused:
        Shard.parse("slurm", slurm(task, 3, 1, 7, 1))
    assert "--array=0-2" in refused.value.hint


def batch():
    return [Row(f"p:{k}", k, resolve(f"prompt {k}", "tiny", 1)) for k in range(5)]


def test_two_parts_at_a_time_lose_nothing_of_each_other(tmp_path):
    first, second = (SharedManifest(tmp_path / "out", Shard(k, 2)) for k in (1, 2))
    mine, others = first.add(batch(), "{slug}"), second.add(batch(), "{slug}")
    assert {entry.name for entry in mine} | {entry.name for entry in others} == {f"prompt-{k}" for k in range(5)}
    first.update(mine[0].name, status="done")
    second.update(others[0].name, status="failed")
    first.save()
    second.save()
    first.save()
    states = {name: entry.status for name, entry in read_manifest(tmp_path / "out").items()}
    assert (states[mine[0].name], states[others[0].name]) == ("done", "failed")
    assert list(states.values()).count("pending") == 3
    first.close()
    second.close()


def test_what_another_part_is_writing_is_left_alone_and_what_a_killed_one_left_goes(tmp_path):
    first = SharedManifest(tmp_path, Shard(1, 2))
    being_written = part_beside(tmp_path / "x.png")
    being_written.touch()
    second = SharedManifest(tmp_path, Shard(2, 2))
    assert being_written.exists()
    first.close()
    second.close()
    SharedManifest(tmp_path, Shard(2, 2)).close()
    assert not being_written.exists()


def test_a_folder_at_work_in_parts_takes_neither_the_whole_nor_the_same_part(tmp_path):
    first = SharedManifest(tmp_path, Shard(1, 2))
    for again in (lambda: Manifest(tmp_path), lambda: SharedManifest(tmp_path, Shard(1, 2))):
        with pytest.raises(RunLocked):
            again()
    SharedManifest(tmp_path, Shard(2, 2)).close()
    first.close()
    Manifest(tmp_path).close()
