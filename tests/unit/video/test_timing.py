"""When which frame is shown; every number is worked out by hand."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqclip.errors import UsageError
from vqclip.video.timing import Timing, frame_order, output_fps, timeline

BARE = {"hold_first": 0.0, "hold_last": 0.0}


def places(count, changes=(), **asked):
    return timeline(count, Timing(**{**BARE, **asked}), changes)[1]


def test_every_frame_is_shown_once():
    assert places(5, fps=10) == [0, 1, 2, 3, 4]


def test_holds_are_added_at_both_ends():
    assert places(5, fps=10, hold_first=0.2, hold_last=0.3) == [0, 0, 0, 1, 2, 3, 4, 4, 4, 4]


def test_ping_pong_goes_back_and_shows_neither_end_twice():
    assert places(5, fps=10, ping_pong=True) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert frame_order(5, Timing(ping_pong=True)) == [0, 1, 2, 3, 4, 3, 2, 1, 0]


def test_ping_pong_holds_the_last_frame_where_it_turns():
    assert places(3, fps=10, ping_pong=True, hold_last=0.2) == [0, 1, 2, 2, 2, 3]


def test_without_ping_pong_the_walk_is_the_frames():
    assert frame_order(4, Timing()) == [0, 1, 2, 3]


def test_a_length_repeats_frames():
    assert places(3, fps=10, length=1) == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]  # 0, 2/9, 4/9 ... 2, rounded


def test_a_length_leaves_frames_out():
    assert places(9, fps=10, length=0.3) == [0, 4, 8]


def test_a_length_has_the_holds_in_it():
    assert places(3, fps=10, length=1, hold_first=0.2, hold_last=0.5) == [0, 0, 0, 1, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("ping_pong", [False, True])
def test_a_length_that_is_too_short_says_which_is_enough(ping_pong):
    timing = {"fps": 30.0, "between": "fade", "ping_pong": ping_pong}
    with pytest.raises(UsageError) as refused:
        timeline(3, Timing(length=1.0, **timing))
    enough = float(re.search(r"--length of ([\d.]+)", refused.value.hint)[1])
    assert 1 < enough < 1.1
    assert timeline(3, Timing(length=enough, **timing))


def test_a_length_has_the_way_back_in_it():
    assert places(3, fps=10, length=0.7, ping_pong=True) == [0, 1, 1, 2, 2, 3, 3]  # 4 forth, an odd one, 2 back


def test_a_fade_has_places_between_the_frames():
    assert places(3, fps=10, length=0.5, between="fade") == pytest.approx([0, 0.5, 1, 1.5, 2])


def test_a_fade_takes_the_time_that_the_frames_would_have_taken():
    fps, found = timeline(20, Timing(between="fade", **BARE))  # 20 frames at 10 a second are 2 s
    assert (fps, len(found)) == (30, 60)


def test_easing_gives_time_by_the_change():
    # the changes add up to 0, 0, 3, 4: at 0, 1, 2, 3 and 4 the walk is so far
    found = places(4, [0, 3, 1], fps=10, length=0.5, ease="change", between="fade")
    assert found == pytest.approx([1, 4 / 3, 5 / 3, 2, 3])


def test_easing_of_equal_changes_is_even():
    assert places(4, [2, 2, 2], fps=10, length=0.7, ease="change", between="fade") == pytest.approx(
        [0, 0.5, 1, 1.5, 2, 2.5, 3]
    )


def test_easing_where_nothing_changes_is_even():
    assert places(3, [0, 0], fps=10, ease="change") == [0, 1, 2]


@pytest.mark.parametrize(
    ("count", "asked", "fps"),
    [
        (31, {}, 10),  # 31 in 5 s are 6.2, and 10 the slowest
        (100, {}, 20),
        (500, {}, 30),
        (80, {"length": 4}, 20),
        (31, {"fps": 60}, 60),
        (31, {"between": "fade"}, 30),
    ],
)
def test_the_pace(count, asked, fps):
    assert output_fps(count, Timing(**asked)) == fps


@pytest.mark.parametrize(
    "asked",
    [{name: value} for name in ("fps", "length") for value in (0, -1, math.nan, math.inf, 1e9)]
    + [{name: value} for name in ("hold_first", "hold_last") for value in (-1, -0.1, math.nan, math.inf, 1e9)]
    + [{"ease": "fast"}, {"between": "magic"}],
    ids=str,
)
def test_it_refuses(asked):
    with pytest.raises(UsageError):
        Timing(**asked)


@pytest.mark.parametrize(
    "asked", [{"length": 1}, {"length": 0.1, "hold_last": 0}, {"length": 3, "hold_first": 3}], ids=str
)
def test_it_refuses_a_length_without_time_for_the_frames(asked):
    with pytest.raises(UsageError, match="no time"):
        timeline(10, Timing(fps=10, **asked))


@given(
    count=st.integers(2, 40),
    fps=st.integers(1, 60),
    length=st.floats(3, 20),
    holds=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    ping_pong=st.booleans(),
    between=st.sampled_from(["none", "fade", "motion"]),
    ease=st.sampled_from(["even", "change"]),
    changes=st.lists(st.floats(0, 255), min_size=39, max_size=39),
)
def test_any_film_is_as_long_as_is_wanted_and_goes_one_way(
    count, fps, length, holds, ping_pong, between, ease, changes
):
    timing = Timing(
        fps=fps, length=length, hold_first=holds[0], hold_last=holds[1], ping_pong=ping_pong, ease=ease, between=between
    )
    _, found = timeline(count, timing, changes[: count - 1])
    assert len(found) == round(length * fps)
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] <= len(frame_order(count, timing)) - 1
    assert max(place for place in found if place <= count - 1) == count - 1


@pytest.mark.parametrize(
    ("values", "name", "use"),
    [
        ({"fps": 1000.0}, "fps", "240"),
        ({"length": -1.0}, "length", "more than 0"),
        ({"ease": "chang"}, "ease", "change"),
    ],
)
def test_a_value_out_of_range_is_told_with_the_whole_range(values, name, use):
    with pytest.raises(UsageError) as caught:
        Timing(**values)
    assert name in caught.value.what
    assert use in caught.value.hint
