"""Numbers that change with time, as people write them: "1.02", "0: 1, 30: 1.05", "0.5 * sin(t / 10)". Never eval.

An expression is arithmetic of numbers, `t` (the frame's number), `pi` and FUNCTIONS. Python's own parser reads it;
whatever is not in the tables at the end of this module is refused. Everything is computed in floats, so no number can
grow.
"""

import ast
import itertools
import math
import operator
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import UsageError

MAX_LENGTH = 1000  # characters in a curve
HINT = 'write a number, an expression of t, or keyframes: "0: 1.0, 30: 1.05 + 0.02 * sin(t / 5)"'
KEY = re.compile(r"\s*(\d{1,7})\s*:(.*)", re.DOTALL)

Expression = Callable[[float], float]


@dataclass(frozen=True)
class Curve:
    """A number for every frame: at a key its own expression, between two keys a linear mix of both."""

    name: str  # for errors
    keys: tuple[int, ...]
    expressions: tuple[Expression, ...]

    @classmethod
    def parse(cls, name: str, text: str) -> "Curve":
        """Read a curve. Raises UsageError naming it."""
        if len(text) > MAX_LENGTH:
            raise UsageError(f"{name}: over {MAX_LENGTH} characters", HINT)
        parts = [KEY.fullmatch(part) for part in _split(text)]
        if not any(parts):
            return cls(name, (0,), (_read(name, text),))
        if not all(parts):
            raise UsageError(f"{name}: a keyframe without a number in {text[:80]!r}", HINT)
        keys = tuple(int(part[1]) for part in parts if part)
        if any(after <= before for before, after in itertools.pairwise(keys)):
            raise UsageError(f"{name}: the keyframes {', '.join(map(str, keys))} do not rise", HINT)
        return cls(name, keys, tuple(_read(name, part[2]) for part in parts if part))

    def at(self, t: int) -> float:
        """Return the value at frame `t`; outside the keys, that of the nearest key. Raises UsageError."""
        after = sum(key <= t for key in self.keys)  # the index of the next key
        first, last = max(after - 1, 0), min(after, len(self.keys) - 1)
        inside = first < last and after > 0
        weight = (t - self.keys[first]) / (self.keys[last] - self.keys[first]) if inside else 0.0
        try:
            value = self.expressions[first](t) * (1 - weight)
            value += self.expressions[last](t) * weight if weight else 0.0
        except (ArithmeticError, ValueError, RecursionError) as error:
            raise UsageError(f"{self.name}: at t = {t}: {error}", HINT) from None
        if not math.isfinite(value):
            raise UsageError(f"{self.name}: at t = {t} it is {value}", HINT)
        return value

    def values(self, frames: Sequence[int], low: float, high: float) -> list[float]:
        """Return the values at some frames. Raises UsageError for one out of range."""
        values = [self.at(t) for t in frames]
        for t, value in zip(frames, values, strict=True):
            if not low <= value <= high:
                raise UsageError(f"{self.name}: {value:g} at t = {t} is out of range", f"use {low:g} to {high:g}")
        return values


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _read(name: str, text: str) -> Expression:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tokenizer warns of "1if"
            tree = ast.parse(text.strip(), mode="eval")
        return _build(tree.body)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UsageError(f"{name}: {text.strip()[:80]!r} can't be read: {reason}", HINT) from None


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
    "max": (2, 9, max),
    "min": (2, 9, min),
    "sin": (1, 1, math.sin),
    "sqrt": (1, 1, math.sqrt),
}
