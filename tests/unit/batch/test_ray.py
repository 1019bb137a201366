"""Rows on a Ray cluster: the same bytes as here, whatever is lost on the way."""

import json
import time
from pathlib import Path

import pytest

import vqclip
from tests.support.runs import AskAfterSteps, contents, differing, row
from vqclip.batch.manifest import Manifest
from vqclip.batch.rows import Row
from vqclip.batch.run import Engine, run_batch
from vqclip.batch.worker import Work
from vqclip.config.resolve import resolve
from vqclip.errors import UsageError
from vqclip.runs.output import Interval, Output

pytest.importorskip("ray", reason="the extra vqclip[ray] is not installed")
PROMPTS = ["a red heart", "an owl", "a tree", "a blue star"]


def rows(steps):
    made = []
    for k, prompt in enumerate(PROMPTS):
        settings = resolve(prompt, "tiny", k, steps=steps, size=(32, 32), cutouts=2)
        made.append(Row(f"p:{k}", k, settings))
    return made


def run(folder, *, steps, on_step=lambda *_: False, engine=Engine()):
    manifest = Manifest(folder)
    try:
        wanted = manifest.add(rows(steps), "{index}-{slug}")
        work = Work(manifest.runs, Output(frames_every=5, checkpoint_every=Interval(steps=1)), "cpu")
        return run_batch(manifest, wanted, work, engine=engine, progress=AskAfterSteps(on_step))
    finally:
        manifest.close()


def test_a_run_comes_back_whole(tmp_path):
    from vqclip.batch.ray import pack, unpack

    (tmp_path / "a/frames").mkdir(parents=True)
    for name in ("run.json", "frames/000000.png", ".lock", "final.png"):
        (tmp_path / "a" / name).write_bytes(name.encode())
    unpack(tmp_path / "b", pack(tmp_path / "a"))
    contents = {
        p.relative_to(tmp_path / "b").as_posix(): p.read_bytes() for p in (tmp_path / "b").rglob("*") if p.is_file()
    }
    assert contents == {name: name.encode() for name in ("run.json", "frames/000000.png", "final.png")}


def test_where_the_folder_is_not_seen_a_run_comes_back_as_bytes(networks, tmp_path):
    from vqclip.batch.ray import RowActor, unpack

    work = Work(tmp_path / "not/here", Output(frames_every=5, checkpoint_every=Interval(steps=1)), "cpu")
    made = rows(3)[0]
    ((outcome, files),) = RowActor(work, ".shared-none").run([row("one", made.settings)])
    assert outcome.status == "done"
    assert not work.runs.exists()
    unpack(tmp_path / "one", files)
    alone = vqclip.generate(made.settings, runs=tmp_path / "solo", frames_every=5, checkpoint_every="1", device="cpu")
    assert differing(contents(tmp_path / "one"), contents(alone.run)) == []


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "no.such.host.invalid:6379", "[::1]:99999999"])
def test_where_nobody_answers_no_work_begins(address):
    began = time.monotonic()
    with pytest.raises(UsageError, match="there is no Ray cluster at"):
        Engine("ray", address).check()
    assert time.monotonic() - began < 30


def test_what_a_killed_command_left_tells_its_workers_to_stop(tmp_path, monkeypatch):
    from vqclip.batch import ray as cluster

    class NoActors:
        def __init__(self, work, marker, workers):
            self.alone = sorted(path.name for path in work.runs.iterdir()) == [marker.name]

        def run(self, waiting, progress):
            yield self.alone

    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(cluster, "ActorPool", NoActors)
    (tmp_path / ".shared-of-another").touch()
    work = Work(tmp_path, Output(frames_every=5, checkpoint_every=Interval(steps=1)), "cpu")
    assert list(cluster.run_on_cluster(work, [], AskAfterSteps())) == [True]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_cluster_of_our_own_listens_on_loopback_alone():  # before those that keep another one
    import psutil
    import ray

    from vqclip.batch.ray import _connect

    _connect("local")
    try:
        here = psutil.Process()
        sockets = [c for p in (here, *here.children(recursive=True)) for c in p.net_connections("inet")]
        listening = {c.laddr.ip.removeprefix("::ffff:") for c in sockets if c.status == "LISTEN"}
        assert listening == {"127.0.0.1"}
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def cluster():
    """Start a head without CPUs and give a function that adds a node of one CPU."""
    import logging

    import ray
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield lambda: cluster.add_node(num_cpus=1, **small), cluster.remove_node
    ray.shutdown()
    cluster.shutdown()


def reached(folder):
    """Return the steps of the runs that are under way."""
    steps = {}
    for path in Path(folder).glob("runs/*/run.json"):
        record = json.loads(path.read_text())
        if record["status"] == "running":
            steps[path.parent.name] = record["steps_done"]
    return steps


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # ray's own
@pytest.mark.timeout(600)
def test_a_node_that_is_killed_costs_only_its_unfinished_rows(cluster, tmp_path):
    steps, killed = 40, []
    add, remove = cluster
    nodes = [add(), add()]

    def kill(*_):
        under_way = reached(tmp_path / "a")
        if not killed and len(under_way) == 2 and min(under_way.values()) >= 5:
            killed.append(under_way)
            remove(nodes[1], allow_graceful=False)
        return False

    ended = run(tmp_path / "a", steps=steps, on_step=kill, engine=Engine("ray", workers=2))
    assert killed
    assert [entry.status for entry in ended] == ["done"] * 4
    here = run(tmp_path / "here", steps=steps)
    for there, alone in zip(ended, here, strict=True):
        one, two = contents(tmp_path / "a/runs" / there.name), contents(tmp_path / "here/runs" / alone.name)
        assert differing(one, two) == []
    resumed = [
        json.loads(line)["step"]
        for line in (tmp_path / "a/runs" / ended[0].name / "metrics.jsonl").read_text().splitlines()
    ]
    assert resumed == list(range(1, steps + 1))
    remove(nodes[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(600)
def test_a_batch_on_a_cluster_stops_in_good_order(cluster, tmp_path):
    add, remove = cluster
    node, began = add(), time.monotonic()

    def stop(*_):
        return max(reached(tmp_path / "a").values(), default=0) >= 2 or time.monotonic() - began > 300

    ended = run(tmp_path / "a", steps=40, on_step=stop, engine=Engine("ray", workers=1))
    assert sorted(entry.status for entry in ended) == ["pending"] * 3 + ["stopped"]
    assert not list((tmp_path / "a/runs").glob(".shared-*"))
    remove(node)
