"""The loop's state: going on from it is as if never stopped, and a damaged file is never taken for a sound one."""

import errno
import json
import os
import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

from tests.support.fakes import FakeClip, FakeVqgan, aim, draw
from vqclip.core.interfaces import LoopInputs
from vqclip.core.loop import State, optimize
from vqclip.core.optimizers import Moments
from vqclip.errors import IntegrityError, OutputError
from vqclip.runs.checkpoint import NAME, PREVIOUS, SCHEMA, TENSORS, _digest, load_state, save_state
from vqclip.settings.schema import Settings

VQGAN, CLIP = FakeVqgan(), FakeClip()
START = draw(1, 8, 4, 5, seed=50) * 0.5
STEPS = 6
LEGS = {"coarse leg": 1, "within the coarse leg": 2, "boundary": 3, "full leg": 4, "one step before the end": 5}
VARIANTS = {
    "plain": {},
    "all of it full": {"coarse": 0.0},
    "all but the last step coarse": {"coarse": 1.0},
    "init_weight": {"init_weight": 2.0},
    "no tv": {"tv": 0.0},
    "much tv": {"tv": 50.0},
    "no momentum": {"momentum": 0.0},
    "no average": {"ema": 0.0},
    "short average": {"ema": 0.5},
    "no damping": {"damping": 0.0},
    "negative prompt": {"prompt": "a red heart | text:-0.5"},
    "prompt with a stop": {"prompt": "a red heart:2:0.4 | blue:-1:-0.9"},
    "a large step": {"step_size": 10.0},
}


def run(state=None, z=START, seeds=None, **changes):
    """Run the loop to its end; return its steps."""
    settings = Settings(**{"prompt": "a red heart", "steps": STEPS, "cutouts": 2, "coarse": 0.5, **changes})
    targets = aim([CLIP], settings.prompt)
    return list(optimize(LoopInputs(VQGAN, [CLIP], targets, settings), z, seeds=seeds, state=state))


def raw(tensor):
    return str(tensor.dtype), tuple(tensor.shape), tensor.detach().contiguous().numpy().tobytes()


def bits(state):
    """Return all of a state in a form that == compares bit by bit."""
    return state.step, state.stage, state.moments.t, *map(raw, state.tensors().values())


def told(step):
    """Return all of a step in a form that == compares bit by bit."""
    losses = {name: raw(value) for name, value in step.losses.items()}
    return step.step, raw(step.latent), losses, step.changed, bits(step.state)


# going on from a state


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_step_after_a_state_is_that_of_the_run_that_was_never_stopped(variant):
    whole = run(**VARIANTS[variant])
    for done in range(1, STEPS + 1):
        rest = run(whole[done - 1].state, **VARIANTS[variant])
        assert [told(step) for step in rest] == [told(step) for step in whole[done:]], f"after step {done}"


@pytest.mark.parametrize("done", LEGS.values(), ids=LEGS)
def test_every_picture_of_a_batch_goes_on_as_if_never_stopped(done):
    batch = torch.cat([START, draw(1, 8, 4, 5, seed=51)])
    whole = run(z=batch, seeds=[1, 2])
    rest = run(whole[done - 1].state, z=batch, seeds=[1, 2])
    assert [told(step) for step in rest] == [told(step) for step in whole[done:]]


@pytest.mark.parametrize("done", LEGS.values(), ids=LEGS)
def test_a_state_goes_on_the_same_after_it_was_on_the_disk(tmp_path, done):
    whole = run(init_weight=1.0)
    save_state(tmp_path, whole[done - 1].state)
    state, _ = load_state(tmp_path)
    assert [told(step) for step in run(state, init_weight=1.0)] == [told(step) for step in whole[done:]]


def test_a_run_can_be_stopped_after_every_step():
    state, steps = None, []
    for _ in range(STEPS):
        settings = Settings(prompt="a red heart", steps=STEPS, cutouts=2, coarse=0.5)
        step = next(optimize(LoopInputs(VQGAN, [CLIP], aim([CLIP], "a red heart"), settings), START, state=state))
        steps.append(told(step))
        state = step.state
    assert steps == [told(step) for step in run()]


def test_after_the_last_step_there_is_nothing_to_go_on_with():
    assert run(run()[-1].state) == []


def test_the_state_at_the_boundary_is_still_of_half_the_size():
    shapes = [step.state.z.shape[-2:] for step in run()]
    assert shapes == [(2, 3)] * 3 + [(4, 5)] * 3


def test_the_optimiser_begins_anew_with_the_full_leg():
    assert [step.state.moments.t for step in run()] == [1, 2, 3, 1, 2, 3]


def test_a_states_step_counts_the_steps_of_the_run():
    assert [step.state.step for step in run()] == [1, 2, 3, 4, 5, 6]


def test_the_picture_shown_is_the_average_of_the_state():
    assert all(torch.equal(step.latent, step.state.ema) for step in run())


def test_later_steps_leave_the_states_before_them_alone():
    settings = Settings(prompt="x", steps=STEPS, cutouts=2, coarse=0.5)
    steps, then = [], []
    for step in optimize(LoopInputs(VQGAN, [CLIP], aim([CLIP], "x"), settings), START):
        steps.append(step)
        then.append(told(step))
    assert [told(step) for step in steps] == then


@pytest.mark.parametrize("done", LEGS.values(), ids=LEGS)
def test_going_on_leaves_the_given_state_alone(done):
    state = run()[done - 1].state
    before = bits(state)
    run(state)
    assert bits(state) == before


def test_a_run_made_longer_follows_the_schedule_of_its_new_length():
    short = run()
    longer = run(short[-1].state, steps=9)
    assert [step.step for step in longer] == [7, 8, 9]
    same_schedule = run(replace(short[-1].state), steps=9)
    other_schedule = run(short[-1].state, steps=20)
    assert told(longer[0]) == told(same_schedule[0])
    assert not torch.equal(longer[0].state.z, other_schedule[0].state.z)


# to the disk and back


def state(step=7, updates=3, seed=0, shape=(1, 2, 2, 3)):
    z, ema, m, v = (draw(*shape, seed=seed * 10 + k) for k in range(4))
    return State(step, "full", z, ema, Moments(m, v, updates))


NEW, OLD = state(), state(step=4, updates=4, seed=1)


def save_both(folder):
    save_state(folder, OLD)
    save_state(folder, NEW)
    return (folder / NAME).read_bytes()


def test_a_state_comes_back_bit_by_bit(tmp_path):
    save_state(tmp_path, NEW)
    found, fault = load_state(tmp_path)
    assert (bits(found), fault) == (bits(NEW), "")


@pytest.mark.parametrize("shape", [(1, 256, 16, 16), (3, 8, 2, 5), (1, 1, 1, 1)])
def test_a_state_of_any_size_comes_back(tmp_path, shape):
    saved = state(shape=shape)
    save_state(tmp_path, saved)
    assert bits(load_state(tmp_path)[0]) == bits(saved)


def test_a_tensor_that_is_laid_out_otherwise_comes_back(tmp_path):
    turned = replace(NEW, z=draw(3, 2, 2, 1, seed=5).permute(3, 1, 2, 0))
    save_state(tmp_path, turned)
    assert bits(load_state(tmp_path)[0]) == bits(turned)


def test_tensors_that_share_their_memory_come_back(tmp_path):
    begun = State.begin(draw(1, 2, 2, 2, seed=5), "coarse", 3)
    save_state(tmp_path, begun)
    assert bits(load_state(tmp_path)[0]) == bits(begun)


def test_odd_numbers_come_back_bit_by_bit(tmp_path):
    odd = torch.tensor([3.4e38, -0.0, 1e-45, -1e-38]).view(1, 1, 2, 2)
    saved = state(shape=(1, 1, 2, 2))
    saved = saved.with_tensors(saved.tensors() | {"moment2": odd})
    save_state(tmp_path, saved)
    assert bits(load_state(tmp_path)[0]) == bits(saved)


def test_saving_takes_no_part_in_the_gradient(tmp_path):
    save_state(tmp_path, replace(NEW, z=NEW.z.clone().requires_grad_()))
    assert not load_state(tmp_path)[0].z.requires_grad


def test_equal_states_give_equal_files(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        save_state(tmp_path / name, NEW)
    assert (tmp_path / "a" / NAME).read_bytes() == (tmp_path / "b" / NAME).read_bytes()


def test_where_no_state_was_saved_there_is_none(tmp_path):
    assert load_state(tmp_path) == (None, "")


def test_the_last_two_states_are_kept_and_no_more(tmp_path):
    for step in (1, 2, 3):
        save_state(tmp_path, state(step=step))
    assert sorted(path.name for path in tmp_path.iterdir()) == [NAME, PREVIOUS]
    assert load_state(tmp_path)[0].step == 3
    (tmp_path / NAME).unlink()
    assert load_state(tmp_path)[0].step == 2


def test_the_state_before_serves_without_complaint_where_the_process_died_between_the_two(tmp_path):
    save_both(tmp_path)
    (tmp_path / NAME).unlink()
    found, fault = load_state(tmp_path)
    assert (bits(found), fault) == (bits(OLD), "")


# damage


def resaved(change_tensors=None, change_numbers=None):
    """Return NEW's file with something exchanged, but for its hash."""

    def make(path):
        with safe_open(path, framework="pt") as file:
            numbers, tensors = json.loads(file.metadata()["vqclip"]), {name: file.get_tensor(name) for name in TENSORS}
        told = json.dumps((change_numbers or dict)(numbers))
        return save((change_tensors or dict)(tensors), metadata={"vqclip": told})

    return make


def forged(change_tensors=None, **numbers):
    """Return a file of NEW with something exchanged and the right hash."""

    def make(path):
        tensors = (change_tensors or dict)(NEW.tensors())
        told = {"schema": SCHEMA, "step": NEW.step, "updates": NEW.moments.t} | numbers
        return save(tensors, metadata={"vqclip": json.dumps(told | {"sha256": _digest(told, tensors)})})

    return make


DAMAGES = {
    "forged: not a number": forged(lambda t: t | {"z": t["z"] / 0}),
    "forged: true": forged(step=True),
    "forged: a huge step": forged(step=10**400),
    "forged: a huge number of updates": forged(updates=10**400),
    "forged: below nothing": forged(updates=-1),
    "empty": lambda path: b"",
    "HTML": lambda path: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "pickle": lambda path: pickle.dumps({"z": 1}),
    "zeros": lambda path: bytes(path.stat().st_size),
    "half": lambda path: path.read_bytes()[: path.stat().st_size // 2],
    "twice": lambda path: path.read_bytes() * 2,
    "a huge header": lambda path: b"\xff" * 7 + b"\x7f" + path.read_bytes()[8:],
    "no metadata": lambda path: save(NEW.tensors()),
    "another schema": resaved(change_numbers=lambda n: n | {"schema": "vqclip-state/2"}),
    "another step": resaved(change_numbers=lambda n: n | {"step": 8}),
    "other updates": resaved(change_numbers=lambda n: n | {"updates": 4}),
    "one word more": resaved(change_numbers=lambda n: n | {"more": "1"}),
    "a record that is a list": resaved(change_numbers=list),
    "no hash": resaved(change_numbers=lambda n: {k: v for k, v in n.items() if k != "sha256"}),
    "an empty hash": resaved(change_numbers=lambda n: n | {"sha256": ""}),
    "z and average exchanged": resaved(lambda t: t | {"z": t["average"], "average": t["z"]}),
    "moments exchanged": resaved(lambda t: t | {"moment1": t["moment2"], "moment2": t["moment1"]}),
    "a tensor missing": resaved(lambda t: {k: v for k, v in t.items() if k != "moment2"}),
    "another shape": resaved(lambda t: t | {"z": t["z"].reshape(1, 2, 3, 2).contiguous()}),
    "another dtype": resaved(lambda t: t | {"z": t["z"].view(torch.int32)}),
    "a tensor without numbers": resaved(lambda t: t | {"z": torch.zeros(0)}),
    "a tensor without axes": resaved(lambda t: t | {"z": torch.tensor(1.0)}),
}


@pytest.fixture(params=DAMAGES)
def damage(request):
    return DAMAGES[request.param]


def test_a_damaged_state_gives_way_to_the_one_before_and_is_named(tmp_path, damage):
    save_both(tmp_path)
    (tmp_path / NAME).write_bytes(damage(tmp_path / NAME))
    found, fault = load_state(tmp_path)
    assert bits(found) == bits(OLD)
    assert NAME in fault
    assert PREVIOUS not in fault


def test_where_no_state_is_sound_that_is_an_integrity_error_that_names_them(tmp_path, damage):
    save_both(tmp_path)
    data = damage(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(data)
    (tmp_path / PREVIOUS).write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        load_state(tmp_path)
    assert caught.value.exit_code == 6
    assert f"{NAME} is damaged" in caught.value.what
    assert f"{PREVIOUS} is damaged" in caught.value.what
    assert caught.value.hint


def test_a_single_state_that_is_damaged_is_an_integrity_error_not_a_start_anew(tmp_path, damage):
    save_state(tmp_path, NEW)
    (tmp_path / NAME).write_bytes(damage(tmp_path / NAME))
    with pytest.raises(IntegrityError):
        load_state(tmp_path)


def test_a_folder_in_a_states_place_is_a_damaged_state(tmp_path):
    save_both(tmp_path)
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()
    found, fault = load_state(tmp_path)
    assert bits(found) == bits(OLD)
    assert NAME in fault


def test_a_damaged_state_before_a_sound_one_is_not_spoken_of(tmp_path):
    save_both(tmp_path)
    (tmp_path / PREVIOUS).write_bytes(b"junk")
    found, fault = load_state(tmp_path)
    assert (bits(found), fault) == (bits(NEW), "")


@pytest.mark.full
def test_a_state_cut_anywhere_is_never_read(tmp_path):
    data = save_both(tmp_path)
    for length in range(len(data)):
        (tmp_path / NAME).write_bytes(data[:length])
        assert bits(load_state(tmp_path)[0]) == bits(OLD), length


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with both states, and the newer one's bytes."""
    folder = tmp_path_factory.mktemp("states")
    return folder, save_both(folder)


LENGTH = len(save(NEW.tensors())) + 150  # about; positions are taken modulo the real one


@pytest.mark.full
@given(position=st.integers(0, LENGTH), flip=st.integers(1, 255))
@example(position=0, flip=1)
@example(position=7, flip=0x80)
@example(position=-1, flip=1)
def test_a_state_with_a_wrong_byte_is_refused_or_still_says_the_same(place, position, flip):
    folder, data = place
    spoiled = bytearray(data)
    spoiled[position % len(data)] ^= flip
    (folder / NAME).write_bytes(spoiled)
    found, fault = load_state(folder)
    assert bits(found) == (bits(OLD) if fault else bits(NEW))


def test_any_wrong_byte_of_the_tensors_is_found(place):
    folder, data = place
    for position in range(8 + int.from_bytes(data[:8], "little"), len(data)):
        spoiled = bytearray(data)
        spoiled[position] ^= 1
        (folder / NAME).write_bytes(spoiled)
        assert NAME in load_state(folder)[1], position


@given(st.binary(max_size=600))
def test_random_bytes_are_no_state(place, junk):
    folder, _ = place
    (folder / NAME).write_bytes(junk)
    found, fault = load_state(folder)
    assert bits(found) == bits(OLD)
    assert fault


# a full disk


@pytest.fixture
def full(monkeypatch):
    """Return a function after which nothing more can be flushed to the disk."""

    def refuse(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr("os.fsync", refuse)


def test_a_state_that_does_not_fit_is_an_output_error(tmp_path, full):
    full()
    with pytest.raises(OutputError) as caught:
        save_state(tmp_path, NEW)
    assert caught.value.exit_code == 8


def test_a_state_that_does_not_fit_leaves_the_one_before_readable(tmp_path, full):
    save_state(tmp_path, OLD)
    full()
    for _ in range(3):
        with pytest.raises(OutputError):
            save_state(tmp_path, NEW)
    found, fault = load_state(tmp_path)
    assert (bits(found), fault) == (bits(OLD), "")


def test_a_state_that_does_not_fit_leaves_no_parts(tmp_path, full):
    save_state(tmp_path, OLD)
    full()
    with pytest.raises(OutputError):
        save_state(tmp_path, NEW)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_an_interrupt_while_a_state_is_written_leaves_the_one_before_readable(tmp_path, monkeypatch):
    def interrupt(handle):
        raise KeyboardInterrupt

    save_state(tmp_path, OLD)
    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path, NEW)
    assert bits(load_state(tmp_path)[0]) == bits(OLD)


def test_a_damaged_state_is_never_put_in_the_place_of_a_sound_one(tmp_path, full):
    save_both(tmp_path)
    (tmp_path / NAME).write_bytes(b"junk")
    assert bits(load_state(tmp_path)[0]) == bits(OLD)
    full()
    with pytest.raises(OutputError):
        save_state(tmp_path, NEW)
    assert bits(load_state(tmp_path)[0]) == bits(OLD)


def test_a_state_can_be_saved_after_the_disk_was_full(tmp_path, monkeypatch, full):
    save_state(tmp_path, OLD)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OutputError):
            save_state(tmp_path, NEW)
    save_state(tmp_path, NEW)
    assert bits(load_state(tmp_path)[0]) == bits(NEW)
    (tmp_path / NAME).unlink()
    assert bits(load_state(tmp_path)[0]) == bits(OLD)


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path):
    with pytest.raises(OutputError):
        save_state(tmp_path / "missing", NEW)


def test_the_state_is_plain_safetensors(tmp_path):
    save_state(tmp_path, NEW)
    with safe_open(tmp_path / NAME, framework="pt") as file:
        assert set(file.keys()) == set(TENSORS)
        assert json.loads(file.metadata()["vqclip"])["schema"] == "vqclip-state/1"
