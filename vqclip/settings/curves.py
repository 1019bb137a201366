"""Numbers that change with time, as people write them: "1.02", "0: 1, 0.6: 0", "0.5 * sin(t / 10)". Never eval.

An expression is arithmetic of numbers, `t`, `pi` and FUNCTIONS. `t` is the share of the run that is done, 0 to 1, where
a setting is a curve, and the frame's number where a story's camera moves by one. Python's own parser reads it; whatever
is not in the tables at the end of this module is refused. Everything is computed in floats, so no number can grow.
"""

import ast
import functools
import itertools
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..errors import UsageError
from ..text import split_list

MAX_LENGTH = 10_000  # characters in a curve that is read; one that is made of it by * may be longer
HINT = 'write a number, an expression of t, or keyframes: "0: 1, 0.6: 0.2, 1: 0.1 + 0.05 * sin(20 * t)"'
KEY = re.compile(r"\s*(\d{1,7}(?:\.\d{0,9})?|\.\d{1,9})\s*:(.*)", re.DOTALL)

Expression = Callable[[float], float]


@dataclass(frozen=True)
class Curve:
    """A number for every time: at a key its own expression, between two keys a linear mix of both.

    It is its text, by which it is equal to another and is written down.
    """

    text: str
    name: str = field(default="", compare=False)  # for errors

    @classmethod
    def parse(cls, name: str, text: str) -> "Curve":
        """Read a curve. Raises UsageError naming it."""
        curve = cls(text.strip(), name)
        if len(curve.text) > MAX_LENGTH:
            raise curve._wrong(f"over {MAX_LENGTH:,} characters")
        curve._keyframes()
        return curve

    def at(self, t: float) -> float:
        """Return the value at a time; outside the keys, that of the nearest key. Raises UsageError."""
        keys, expressions = self._keyframes()
        after = sum(key <= t for key in keys)  # the index of the next key
        first, last = max(after - 1, 0), min(after, len(keys) - 1)
        inside = first < last and after > 0
        weight = (t - keys[first]) / (keys[last] - keys[first]) if inside else 0.0
        try:
            value = expressions[first](t)
            if weight and (end := expressions[last](t)) != value:  # else not a bit of difference
                value = value * (1 - weight) + end * weight
        except (ArithmeticError, ValueError, RecursionError) as error:
            raise self._wrong(f"at t = {t:g}: {error}") from None
        if not math.isfinite(value):
            raise self._wrong(f"at t = {t:g} it is {value}")
        return value

    def values(self, times: Iterable[float], low: float = -math.inf, high: float = math.inf) -> list[float]:
        """Return the values at some times. Raises UsageError for one out of range."""
        values = []
        for t in times:
            values.append(self.at(t))
            if not low <= values[-1] <= high:
                raise self._wrong(f"{values[-1]:g} at t = {t:g} is out of range", f"use {low:g} to {high:g}")
        return values

    def __mul__(self, factor: float) -> "Curve":
        """Return the curve whose every value is so many times as large."""
        parts = [KEY.fullmatch(part) for part in split_list(self.text)]
        scaled = [f"{part[1]}: {factor!r} * ({part[2].strip()})" for part in parts if part]
        return Curve(", ".join(scaled) or f"{factor!r} * ({self.text})", self.name)

    def __str__(self) -> str:
        return self.text

    def _keyframes(self) -> tuple[tuple[float, ...], tuple[Expression, ...]]:
        try:
            return _keyframes(self.text)
        except UsageError as error:
            raise self._wrong(error.what, error.hint) from None

    def _wrong(self, what: str, hint: str = HINT) -> UsageError:
        return UsageError(f"{self.name}: {what}" if self.name else what, hint)


@functools.lru_cache(maxsize=1000)
def _keyframes(text: str) -> tuple[tuple[float, ...], tuple[Expression, ...]]:
    """Return the keys of a curve and their expressions. Raises UsageError."""
    parts = [KEY.fullmatch(part) for part in split_list(text)]
    if not any(parts):
        return (0,), (_read(text),)
    if not all(parts):
        raise UsageError(f"a keyframe without a number in {text[:80]!r}", HINT)
    keys = tuple(float(part[1]) for part in parts if part)
    if any(after <= before for before, after in itertools.pairwise(keys)):
        raise UsageError(f"the keyframes {', '.join(f'{key:g}' for key in keys)} do not rise", HINT)
    return keys, tuple(_read(part[2]) for part in parts if part)


def _read(text: str) -> Expression:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tokenizer warns of "1if"
            tree = ast.parse(text.strip(), mode="eval")
        return _build(tree.body)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f"{text.strip()[:80]!r} can't be read: {reason}", HINT) from None


def _build(node: ast.expr) -> Expression:
    """Return a syntax tree as a function of t. Raises ValueError for a node that is in no table."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            constant = float(number)
            return lambda t: constant
        case ast.Name(id="t"):
            return float
        case ast.Name(id="pi"):
            return lambda t: math.pi
        case ast.UnaryOp(op=op, operand=operand) if type(op) in SIGNS:
            sign, inner = SIGNS[type(op)], _build(operand)
            return lambda t: sign(inner(t))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            apply, a, b = OPERATORS[type(op)], _build(left), _build(right)
            return lambda t: apply(a(t), b(t))
        case ast.Call(func=ast.Name(id=called), args=args, keywords=[]) if called in FUNCTIONS:
            least, most, function = FUNCTIONS[called]
            if not least <= len(args) <= most:
                raise ValueError(f"{called} takes {least} {'number' if most == 1 else 'or more numbers'}")
            parts = [_build(arg) for arg in args]
            return lambda t: function(*(part(t) for part in parts))
    known = ", ".join(("t", "pi", *FUNCTIONS))
    raise ValueError(f"{ast.unparse(node)[:40]!r} is none of + - * / %, {known}")


SIGNS: dict[type, Callable[[float], float]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Mult: operator.mul,
    ast.Sub: operator.sub,
}
FUNCTIONS: dict[str, tuple[int, int, Callable[..., float]]] = {  # name -> fewest and most numbers, function
    "abs": (1, 1, abs),
    "cos": (1, 1, math.cos),
    "exp": (1, 1, math.exp),
    "floor": (1, 1, lambda value: float(math.floor(value))),
    "max": (2, 9, max),
    "min": (2, 9, min),
    "sin": (1, 1, math.sin),
    "sqrt": (1, 1, math.sqrt),
}
