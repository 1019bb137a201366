"""Curves over time: values by hand, and whatever is typed is a number or one UsageError."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqclip.errors import UsageError
from vqclip.settings.curves import Curve


def at(text, *frames):
    return [Curve.parse("zoom", text).at(t) for t in frames]


@pytest.mark.parametrize(
    ("text", "t", "value"),
    [
        ("1.05", 7, 1.05),
        (" -2 ", 0, -2),
        ("1e-2", 0, 0.01),
        ("2 + 3 * 4", 0, 14),
        ("(2 + 3) * 4", 0, 20),
        ("7 % 4 - 10 / 4", 0, 0.5),
        ("t", 9, 9),
        ("0.5 * sin(t / 10)", 5, 0.5 * math.sin(0.5)),
        ("cos(pi)", 0, -1),
        ("max(1, t, 3)", 2, 3),
        ("min(abs(-4), sqrt(9))", 0, 3),
        ("exp(0)", 0, 1),
        ("floor(2.9)", 0, 2),
        ("-(-t)", 3, 3),
    ],
)
def test_an_expression(text, t, value):
    assert at(text, t) == [pytest.approx(value, abs=1e-12)]


def test_keyframes_are_joined_by_straight_passages():
    assert at("0: 1.0, 30: 1.3, 40: 1.3", 0, 10, 30, 35, 40) == pytest.approx([1.0, 1.1, 1.3, 1.3, 1.3])


def test_outside_of_the_keyframes_the_first_and_last_go_on():
    assert at("10: 2, 20: 4", 0, 9, 10, 20, 500) == [2, 2, 2, 4, 4]


def test_keyframes_may_hold_expressions():
    """Half way it is half of each: t/2 and 10 - t at 4 are 2 and 6."""
    assert at("0: t / 2, 8: 10 - t", 0, 4, 8, 10) == [0, 4, 2, 0]


def test_keys_may_be_fractions():
    assert at("0: 1, 0.6: 0, .8: 2", 0, 0.3, 0.6, 0.7, 0.9, 1) == pytest.approx([1, 0.5, 0, 1, 2, 2])


def test_between_equal_keys_not_a_bit_changes():
    assert set(at("0: 0.3, 0.7: 0.3, 1: 0.3", *(k / 100 for k in range(101)))) == {0.3}


@pytest.mark.parametrize("text", ["2", "t + 1", "0: 1, 0.6: 2 + t, 1: min(1, t)"])
def test_a_scaled_curve_has_scaled_values(text):
    curve = Curve.parse("zoom", text)
    long = Curve.parse("", ", ".join(f"0.{k:04d}: 1" for k in range(900)))
    assert (long * 0.5).at(0.5) == 0.5  # a run that diverges is not stopped by the length of its curve
    assert [(curve * 0.5).at(k / 7) for k in range(8)] == pytest.approx([curve.at(k / 7) / 2 for k in range(8)])


# Schedules of other tools, each by the curve that it is here: values by hand, at shares of the run.
SCHEDULES = {
    # eleuther's and nerdyrodent's MSE: 1.5, down by 0.5 every 50 of 200 steps, to 0
    "mse decay": ("max(0, 1.5 - 0.5 * floor(t / 0.25))", {0: 1.5, 0.2: 1.5, 0.25: 1, 0.6: 0.5, 0.75: 0, 0.99: 0}),
    # Disco Diffusion's [12]*400+[4]*600 overviews
    "cut overview": ("12 - 8 * min(1, floor(t / 0.4))", {0: 12, 0.399: 12, 0.4: 4, 0.9: 4}),
    # pixray's: a tenth of the learning rate after three quarters
    "lr drop": ("0.2 - 0.18 * min(1, floor(t / 0.75))", {0: 0.2, 0.74: 0.2, 0.75: 0.02, 1: 0.02}),
    "exponential": ("0.1 * exp(-3 * t)", {0: 0.1, 0.5: 0.1 * math.exp(-1.5), 1: 0.1 * math.exp(-3)}),
    "cosine with warm-up": ("min(1, t / 0.1) * (1 + cos(pi * t)) / 2", {0: 0, 0.05: 0.4969, 0.5: 0.5, 1: 0}),
    "token noise": ("max(0, cos(0.75 * pi * t))", {0: 1, 2 / 3: 0, 0.9: 0}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_other_tools_are_curves(name):
    text, values = SCHEDULES[name]
    assert at(text, *values) == pytest.approx(list(values.values()), abs=1e-4)


def test_commas_in_parentheses_part_no_keyframes():
    assert at("0: min(1, 2), 10: max(1, 2)", 0, 10) == [1, 2]


BAD = [
    *("", "  ", "x", "t t", "1,2", "0: 1, 2", "0:1, 0:2", "5: 1, 3: 2", "0:", ": 1", "-1: 2", ".: 1", "1 +", "("),
    *("t ** 2", "t // 2", "1 < 2", "1 if t else 2", "True", "None", "'a'", "1j", "t.real", "[1]", "(1, 2)"),
    *("lambda: 1", "sin", "sin()", "sin(1, 2)", "max(1)", "sin(x=1)", "sin(*t)", "sin.__class__", "(sin)(t)(t)"),
    *("__import__('os')", "exec('1')", "open('x')", "t := 1", "await t", "1; 2", "1\n2", "\x00", "pi()"),
    *("9" * 400, "(" * 400 + ")" * 400, "1" * 1001, "0" * 10_001),
]


@pytest.mark.parametrize("text", BAD, ids=lambda text: repr(text[:20]))
def test_what_is_no_curve_is_refused(text):
    with pytest.raises(UsageError, match=r"^zoom: "):
        at(text, 0)


@pytest.mark.parametrize("text", ["1 / t", "sqrt(0 - 1)", "exp(1000)", "1e308 * 10", "1e999", "1e999 - 1e999", "t % t"])
def test_what_is_no_number_at_a_frame_is_refused_with_the_frame(text):
    with pytest.raises(UsageError, match=r"^zoom: at t = 0"):
        at(text, 0)


def test_a_deep_expression_is_a_number_or_is_refused():
    with pytest.raises(UsageError):
        at("0" + "+(1" * 250 + ")" * 250, 0)
    assert at("0" + "+1" * 450, 0) == [450]


def test_values_are_kept_in_range():
    curve = Curve.parse("zoom", "t")
    assert curve.values(range(3), 0, 2) == [0, 1, 2]
    with pytest.raises(UsageError, match=r"^zoom: 3"):
        curve.values(range(4), 0, 2)


@given(st.text(alphabet="t0123456789.+-*/%(),: sincoexpmaqr_['\"]={}lambdf\n", max_size=60) | st.text(max_size=30))
def test_anything_typed_is_a_finite_number_or_a_usage_error(text):
    try:
        found = at(text, 0, 7, 1000)
    except UsageError:
        return
    assert all(math.isfinite(value) for value in found)


@given(st.recursive(
    st.sampled_from(["t", "pi", "0.5", "3"]),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})")
    | inner.map(lambda p: f"sin({p})"),
    max_leaves=12,
), st.integers(0, 99))  # fmt: skip
def test_arithmetic_is_python_s(text, t):
    assert at(text, t) == [pytest.approx(eval(text, {"t": t, "pi": math.pi, "sin": math.sin}))]
