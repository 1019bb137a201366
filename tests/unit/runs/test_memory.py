"""Memory and disk: what is needed is told beforehand, and where it runs out the run goes on smaller or ends well."""

import json
import platform
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.support.fakes import FakeClip, FakeVqgan, aim
from tests.support.fakes import draw as numbers
from vqclip.core import torch_private
from vqclip.core.interfaces import LoopInputs
from vqclip.core.loop import chunk_size, optimize
from vqclip.errors import OutOfMemory, OutputError
from vqclip.runs import api as pipeline
from vqclip.runs import memory
from vqclip.runs.memory import Need, _limits, available, estimate, fit_memory, smaller_chunk
from vqclip.settings.schema import Settings

QUICK = {"size": (32, 32), "steps": 4, "cutouts": 8, "seed": 5, "device": "cpu"}
Free = namedtuple("Free", "total used free")


def session(**changes):
    return pipeline.prepare(Settings(prompt="a red heart", size=(32, 32), cutouts=8, **changes), "cpu")


# chunks


@pytest.mark.parametrize("chunk", [1, 3, 7, 8, 100])
def test_chunks_change_the_picture_no_more_than_rounding_does(chunk):
    ends = []
    for each in (0, chunk):
        settings = Settings(prompt="a red heart", steps=6, cutouts=8, chunk=each)
        targets = aim([FakeClip()], settings.prompt)
        *_, last = optimize(LoopInputs(FakeVqgan(), [FakeClip()], targets, settings), numbers(1, 8, 8, 8, seed=3) * 0.5)
        ends.append(last)
    assert torch.allclose(ends[0].latent, ends[1].latent, atol=1e-4)
    assert torch.allclose(ends[0].losses["prompt"], ends[1].losses["prompt"], atol=1e-5)


def test_no_more_views_than_a_chunk_are_embedded_at_once_while_the_loop_runs():
    seen = []

    class Counting(FakeClip):
        def encode_image(self, image):
            seen.append(len(image))
            return super().encode_image(image)

    settings = Settings(prompt="a red heart", steps=1, cutouts=8, chunk=3, coarse=0)
    list(
        optimize(
            LoopInputs(FakeVqgan(), [Counting()], aim([FakeClip()], "a red heart"), settings),
            numbers(1, 8, 8, 8, seed=3),
        )
    )
    assert seen == [3, 3, 2]  # and none once more for its gradient


@pytest.mark.parametrize(("device", "more", "count"), [("cpu", {}, 8), ("cuda", {}, 20), ("cpu", {"chunk": 20}, 20)])
def test_without_a_chunk_all_are_chunk_size_but_on_the_cpu(device, more, count):
    settings = Settings(prompt="x", cutouts=20, **more)
    assert chunk_size(settings, torch.device(device)) == count


def test_pictures_of_a_batch_are_seen_as_each_alone(networks):
    seen = []

    class Counting(FakeClip):
        def encode_image(self, image):
            seen.append(len(image))
            return super().encode_image(image)

    settings = Settings(prompt="a red heart", steps=1, cutouts=12, coarse=0)
    list(
        optimize(
            LoopInputs(FakeVqgan(), [Counting()], aim([FakeClip()], "a red heart"), settings),
            numbers(2, 8, 8, 8, seed=3),
        )
    )
    assert seen == [16, 8]


# the estimate


def test_the_estimate_counts_what_is_there_at_once(networks):
    class Squares(torch.nn.Module):
        f, name, codebook, notes = 4, "squares", FakeVqgan().codebook, ()

        def decode(self, z):
            return (z.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :3]) ** 2

        def encode(self, image):
            return FakeVqgan().encode(image)

        def lower(self, dtype):
            pass

    networks.vqgan = Squares()
    need = estimate(session())
    latent, whole, part = 4 * 8 * 8 * 8, 4 * 8 * 32 * 32, 4 * 3 * 32 * 32
    assert need.decoded == int(
        memory.OVERHEAD * (latent + whole + part)
    )  # the square keeps its input: a view of it all
    assert need.decoder_peak >= int(memory.OVERHEAD * (latent + whole + 3 * part))  # the square's gradient, and its own
    assert need.cutouts == int(memory.OVERHEAD * 8 * 3 * 16 * 16 * memory.CUTOUT_BYTES)


def test_what_is_let_go_is_no_longer_counted():
    with FakeTensorMode(), torch_private.Tally() as tally:
        kept = torch.empty(100)
        for _ in range(5):
            passing = kept + 1
            passing.view(50, 2).add_(1)  # no bytes of their own
        del passing
    assert (tally.now, tally.peak) == (400, 1200)  # the new one is there before the old one goes


def test_the_estimate_of_the_cutouts_grows_with_them_or_their_chunk(networks):
    eight, sixteen, chunked = (
        estimate(session(**more))
        for more in ({}, {"tv": 0}, {"chunk": 2})
    )  # fmt: skip
    assert sixteen == eight  # another loss is no other memory
    assert 0 < chunked.clips < eight.clips
    assert chunked.cutouts * 4 == pytest.approx(eight.cutouts, abs=4)


def test_logits_over_the_codebook_are_counted_where_they_are_moved(networks):
    plain, logits = estimate(session()), estimate(session(latent="logits"))
    one = 4 * len(FakeVqgan().codebook) * 8 * 8
    assert logits.total - plain.total == logits.logits - plain.logits >= 12 * one


@pytest.mark.parametrize("mix", ["sum", "turns"])
def test_several_clips_need_no_more_than_the_largest(networks, mix):
    one = estimate(session())
    both = estimate(session(clips=("tiny", "tiny"), clip_mix=mix))
    assert (both.decoded, both.cutouts, both.clips) == (one.decoded, one.cutouts, one.clips)


@pytest.mark.full
def test_what_the_bundled_networks_need_for_a_modest_image_is_known_without_counting(monkeypatch):
    most = {"cutouts": 8, "latent": "logits", "upscale": 8, "precision": "float32"}
    largest = Settings(prompt="a red heart", size=(256, 256), **most)
    assert 0 < estimate(pipeline.prepare(largest, "cpu")).total <= memory.MODEST
    monkeypatch.setattr(memory, "available", lambda device: memory.KEEP_FREED_FACTOR * memory.MODEST)
    monkeypatch.setattr(memory, "estimate", lambda session: pytest.fail("counted"))
    assert fit_memory(pipeline.prepare(largest, "cpu"), fit=False) == {}


@pytest.mark.parametrize("change", [{"size": (256, 288)}, {"cutouts": 9, "chunk": 9}, {"vqgan": "other"}, None])
def test_memory_is_counted_for_larger_images_other_networks_and_where_little_is_free(networks, monkeypatch, change):
    one = pipeline.prepare(Settings(prompt="a red heart", size=(64, 64)), "cpu")
    one.settings = one.settings.model_copy(update=change or {})
    monkeypatch.setattr(memory, "find", lambda kind, name: SimpleNamespace(bundled=name == "tiny", weights=Path()))
    monkeypatch.setattr(memory, "available", lambda device: 10**10 if change else 3 * memory.MODEST - 1)
    counted = []
    monkeypatch.setattr(memory, "estimate", lambda session: counted.append(session))
    fit_memory(one, fit=False)
    assert counted == [one]


@pytest.mark.full
def test_a_large_picture_is_estimated_in_as_few_operations_as_a_small_one(monkeypatch):
    followed, plain = [], torch_private.Tally.__torch_dispatch__
    monkeypatch.setattr(torch_private.Tally, "__torch_dispatch__", lambda *args: followed.append(1) or plain(*args))
    counts = []
    for side in (64, 8192):
        followed.clear()
        need = estimate(pipeline.prepare(Settings(prompt="a red heart", size=(side, side)), "cpu"))
        counts.append(len(followed))
    assert need.total > 8192**2 * 1000
    assert counts[1] <= 1.1 * counts[0]


def test_what_shapes_cannot_follow_is_not_estimated(networks, monkeypatch):
    class Peeking(FakeClip):
        def encode_image(self, image):
            return super().encode_image(image * float(image.sum() > 0))

    networks.clip = Peeking()
    assert estimate(session()) is None
    assert fit_memory(session(), fit=False) == {}


NEED = Need(decoder_peak=1_000, decoded=1_000, cutouts=200, clips=800, upscaling=0)  # 125 a cutout


@pytest.mark.parametrize(
    ("free", "chunk"),
    [(2_000, None), (1_999, 7), (1_700, 5), (1_126, 1), (1_125, 1)],
)
def test_with_fit_as_many_cutouts_stay_together_as_there_is_room_for(networks, monkeypatch, free, chunk):
    monkeypatch.setattr(memory, "estimate", lambda session: NEED)
    monkeypatch.setattr(memory, "available", lambda device: free)
    assert fit_memory(session(), fit=True) == ({} if chunk is None else {"chunk": chunk})


@pytest.mark.parametrize(("free", "chunk"), [(2_700, None), (2_699, 7), (2_400, 5), (1_825, 1)])
def test_logits_leave_less_room_for_the_cutouts(networks, monkeypatch, free, chunk):
    monkeypatch.setattr(memory, "estimate", lambda session: replace(NEED, logits=700))
    monkeypatch.setattr(memory, "available", lambda device: free)
    assert fit_memory(session(), fit=True) == ({} if chunk is None else {"chunk": chunk})
    monkeypatch.setattr(memory, "available", lambda device: 1_699)  # the decoder alone is too much
    with pytest.raises(OutOfMemory):
        fit_memory(session(), fit=True)


def test_a_run_that_was_made_to_fit_says_so_and_records_it(networks, monkeypatch):
    monkeypatch.setattr(memory, "estimate", lambda session: NEED)
    monkeypatch.setattr(memory, "available", lambda device: 1_700)
    said = []
    result = pipeline.generate("a red heart", **QUICK, fit=True, on_start=lambda session, run: said.append(session))
    assert "5 of the cutouts" in said[0].notes[-1]
    assert result.settings.chunk == 5


@pytest.mark.parametrize(
    ("free", "fit", "words"),
    [(1_999, False, ("--fit", "--size")), (1_124, True, ("--size",)), (999, True, ("--size",))],
)
def test_too_little_memory_is_told_before_the_run_with_the_advice_that_fits(
    networks, monkeypatch, tmp_path, free, fit, words
):
    monkeypatch.setattr(memory, "estimate", lambda session: NEED)
    monkeypatch.setattr(memory, "available", lambda device: free)
    with pytest.raises(OutOfMemory) as caught:
        pipeline.generate("a red heart", **QUICK, runs=tmp_path / "runs", fit=fit)
    assert caught.value.exit_code == 7
    assert "free" in caught.value.what
    for word in words:
        assert word in caught.value.hint
    assert ("--fit" in caught.value.hint) == (not fit)
    assert not list(tmp_path.glob("runs/*"))


def test_a_gigabyte_is_a_thousand_megabytes_as_in_bench_and_doctor(networks, monkeypatch):
    monkeypatch.setattr(memory, "estimate", lambda session: replace(NEED, decoder_peak=2_000_000_000))
    monkeypatch.setattr(memory, "available", lambda device: 1_000_000_000)
    with pytest.raises(OutOfMemory, match=r"2\.0 GB .* 1\.0 GB"):
        fit_memory(session(), fit=False)


def test_too_little_memory_is_told_before_the_start_takes_it(networks, monkeypatch):
    """The start of a large picture is decoded and encoded whole."""
    monkeypatch.setattr(memory, "available", lambda device: 0)
    monkeypatch.setattr("vqclip.runs.session.INITS", {})
    with pytest.raises(OutOfMemory):
        pipeline.generate("a red heart", **QUICK)


def test_a_sessions_shape_is_its_latents(networks):
    for size in ((32, 32), (48, 32)):
        made = pipeline.prepare(Settings(prompt="a red heart", size=size, cutouts=8), "cpu")
        assert made.shape == tuple(made.start().z.shape)


def test_a_container_and_a_shell_may_allow_less_than_the_machine_has(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 50\n")
    assert list(_limits(tmp_path)) == [650]
    (tmp_path / "memory.max").write_text("max\n")
    assert list(_limits(tmp_path)) == []
    resource = pytest.importorskip("resource")
    room = psutil.Process().memory_info().vms + memory.ADDRESSES + 10**9
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (room, room))
    assert list(_limits(tmp_path)) == [pytest.approx(10**9, abs=10**8)]
    assert available(torch.device("cpu")) <= 1.1e9


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)),) * 2)
from vqclip.__main__ import main
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited there alone")
@pytest.mark.parametrize("limit", [1.5, 2.5, 3.5, 3.8, 4.0, 4.2, 4.4])
def test_a_small_address_space_is_named(tmp_path, limit):
    words = ("generate", "x", "--steps", "1", "--size", "32", "--seed", "1", "--quiet", "--device", "cpu")
    command = (sys.executable, "-c", LIMITED, str(int(limit * 1e9)), *words)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 7), done.stderr
    assert len(done.stderr.splitlines()) in (0, 2)


@pytest.mark.full
@pytest.mark.parametrize("limit", [0.15, 0.25, 0.4])
@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited there alone")
def test_an_ffmpeg_without_memory_is_named(tmp_path, limit):
    for k in range(3):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{k}.png")
    command = (sys.executable, "-c", LIMITED, str(int(limit * 1e9)), "video", ".", "-o", "v.mp4", "--quiet")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr


def test_the_machine_has_some_memory():
    assert 2**24 < memory.available(torch.device("cpu")) < 2**50


# running out on the way


class Small(FakeClip):
    """A CLIP that has room for so many views at once, from a call on."""

    def __init__(self, room, calls=0):
        super().__init__()
        self.room, self.calls = room, calls

    def encode_image(self, image):
        self.calls -= 1
        if self.calls < 0 and image.requires_grad and len(image) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().encode_image(image)


@pytest.mark.parametrize("calls", [0, 2])
def test_with_fit_a_run_that_lacks_memory_goes_on_in_smaller_chunks(networks, monkeypatch, tmp_path, calls):
    monkeypatch.setattr(memory, "estimate", lambda session: None)
    networks.clip = Small(room=2, calls=calls)
    said = []
    result = pipeline.generate("a red heart", **QUICK, runs=tmp_path, fit=True, on_note=said.append)
    assert result.steps == 4
    assert result.settings.chunk == 2
    record = json.loads((result.run / "run.json").read_text())
    assert record["settings"]["chunk"] == 2
    assert [change["settings"] for change in record["changes"]] == [{"chunk": 4}, {"chunk": 2}]
    assert "chunk 2" in said[-1]
    assert len((result.run / "metrics.jsonl").read_text().splitlines()) == 4


def test_without_fit_it_ends_with_exit_code_7_and_resumes_with_it(networks, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "estimate", lambda session: None)
    networks.clip = Small(room=2, calls=2)
    with pytest.raises(OutOfMemory) as caught:
        pipeline.generate("a red heart", **QUICK, runs=tmp_path)
    assert "--fit" in caught.value.hint
    (run,) = tmp_path.iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    with Image.open(run / "final.png") as picture:
        assert picture.size == (32, 32)
    assert pipeline.resume(run, fit=True).steps == 4


def test_where_one_cutout_is_too_much_even_fit_gives_up(networks, monkeypatch):
    monkeypatch.setattr(memory, "estimate", lambda session: None)
    networks.clip = Small(room=0)
    with pytest.raises(OutOfMemory):
        pipeline.generate("a red heart", **QUICK, fit=True)


@pytest.mark.parametrize(("device", "ends"), [("cuda", [10, 5, 2, 1]), ("cpu", [4, 2, 1])])
def test_halving_ends_at_one(device, ends):
    sizes, chunk = [], 0
    settings = Settings(prompt="x", cutouts=20)
    while chunk := smaller_chunk(settings, torch.device(device)):
        sizes.append(chunk)
        settings = settings.model_copy(update={"chunk": chunk})
    assert sizes == ends


# the disk


def test_a_disk_without_room_is_told_before_the_first_step(networks, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Free(10**9, 10**9, 1_000))
    steps = []
    with pytest.raises(OutputError) as caught:
        pipeline.generate("a red heart", **QUICK, runs=tmp_path, frames_every=1, on_step=steps.append)
    assert caught.value.exit_code == 8
    assert "kB free" in caught.value.what
    assert not steps


def test_more_frames_need_more_room(networks, monkeypatch, tmp_path):
    room = 0.6 * 32 * 32 * 3 * 6 + 2 * 4 * 8 * 8 * 8 * 4 + 4 * 150  # three frames, three more pictures, states, metrics
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Free(10**9, 0, round(room)))
    with pytest.raises(OutputError):
        pipeline.generate("a red heart", **QUICK, runs=tmp_path / "often", frames_every=1)
    assert pipeline.generate("a red heart", **QUICK, runs=tmp_path / "seldom", frames_every=2).steps == 4


def test_a_disk_that_fills_up_ends_the_run_with_state_and_picture_saved(networks, monkeypatch, tmp_path):
    free = {"now": 10**9}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Free(10**9, 0, free["now"]))

    def fill(step):
        if step.step == 2:
            free["now"] = 5_000

    with pytest.raises(OutputError) as caught:
        pipeline.generate("a red heart", **QUICK, runs=tmp_path, frames_every=1, on_step=fill)
    assert "fewer frames" in caught.value.hint
    (run,) = tmp_path.iterdir()
    assert (run / "final.png").exists()
    assert len(list((run / "frames").iterdir())) >= 3
    free["now"] = 10**9
    whole = pipeline.generate("a red heart", **QUICK, runs=tmp_path / "whole")
    assert pipeline.resume(run).picture.tobytes() == whole.picture.tobytes()


def test_a_place_whose_room_cannot_be_told_is_an_output_error(tmp_path):
    from vqclip.files.atomic import require_space

    with pytest.raises(OutputError):
        require_space(tmp_path / "gone", 1, "the run")


REUSED = """
import resource, sys, torch
from vqclip.runs.memory import keep_freed
for wanted in sys.argv[1:]:
    keep_freed(wanted == "kept")
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(64, 2**20)  # 256 MB
before = faults()
torch.ones(60, 2**20)  # less: before 2.38 glibc finds no aligned place in one that fits exactly
print(faults() - before)
"""


@pytest.mark.full
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_memory_that_is_kept_is_not_cleared_again():
    def cleared(*ways):
        return int(subprocess.run([sys.executable, "-c", REUSED, *ways], check=True, capture_output=True).stdout)

    assert cleared("kept") < 1000  # pages of 4 kB
    assert min(cleared(), cleared("kept", "given back")) > 50_000


KEPT = """
import psutil, torch
from vqclip.runs.memory import keep_freed
def size():
    return psutil.Process().memory_info().rss
keep_freed(True)
pieces = [torch.ones(2**22) for _ in range(32)]  # 512 MB
last = torch.ones(2**22)
pieces.clear()
kept = size()
keep_freed(False)
print(kept - size())
"""


@pytest.mark.full
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_what_one_run_kept_is_free_for_the_next():
    told = subprocess.run([sys.executable, "-c", KEPT], check=True, capture_output=True).stdout
    assert int(told) > 400 * 2**20


@pytest.mark.parametrize(
    ("times", "kept"), [(memory.KEEP_FREED_FACTOR + 0.1, True), (memory.KEEP_FREED_FACTOR - 0.1, False)]
)
def test_freed_memory_is_kept_where_there_is_plenty(networks, monkeypatch, times, kept):
    heard = []
    one = session()
    monkeypatch.setattr(memory, "keep_freed", lambda wanted: heard.append(wanted))
    monkeypatch.setattr(memory, "available", lambda device: int(estimate(one).total * times))
    assert fit_memory(one, fit=False) == {}
    assert heard == [False, kept]
