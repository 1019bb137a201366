"""Fuzzing: what bad inputs are made of, and how many of them are tried, each within limits of time and memory.

VQCLIP_FUZZ=20000 tries so many of each kind.
"""

import contextlib
import os
import resource
import signal
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqclip.errors import VqclipError

SECONDS, BYTES = 20, 2 * 10**9  # that one input may take
COUNT = int(os.environ.get("VQCLIP_FUZZ", "0"))  # of each kind, if it is asked for

words = st.text(st.characters(exclude_categories=()), max_size=12)  # surrogates and control characters included
odd = st.sampled_from(
    ["", " ", "0", "-1", "1e999", "nan", "-inf", "9" * 5000, "x" * 3000, "a\nb", "\x1b]0;pwn\x07", "\u202e", "\ud800",
     "a:2:-0.5", "|", "a|b:0", "../../x", "/nowhere/x", "~", "~nobody", "${HOME}", "tiny", "auto", "64x32", "8193",
     "\x00"]
)  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | words
    | odd
    | st.sampled_from([2**63, 2**64, -(2**63) - 1, 5e-324, 1e308])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
)
edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "cut", "repeat"]), st.floats(0, 0.999), st.binary(max_size=6)
    ),
    max_size=4,
)


def mutated(data, changes):
    """Return bytes with a few edits at shares of their length."""
    data = bytearray(data)
    for kind, share, junk in changes:
        at = int(share * len(data))
        if kind == "flip" and data:
            data[at] ^= (junk or b"\x01")[0] or 1
        elif kind == "insert":
            data[at:at] = junk
        elif kind == "delete":
            del data[at : at + 1 + len(junk)]
        elif kind == "cut":
            del data[at:]
        elif kind == "repeat":
            data[at:at] = data[at // 2 : at // 2 + 40]
    return bytes(data)


@contextlib.contextmanager
def limited():
    """Fail an input that takes long, or much memory."""

    def late(number, frame):
        raise AssertionError(f"over {SECONDS} seconds")

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    old = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, limits[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def fuzz(act, strategy, examples):
    """Try so many inputs; return how often which outcome came. Every one is taken, or a VqclipError answers it."""
    seen: Counter[str] = Counter()

    @settings(max_examples=COUNT or examples, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def attempt(value):
        fault = None
        try:
            with limited():
                act(value)
        except VqclipError as error:
            fault = error
        if fault:
            assert len(fault.what.splitlines()) == 1
            assert fault.what.strip()
            assert fault.hint
            assert 2 <= fault.exit_code <= 11
        seen[type(fault).__name__ if fault else "taken"] += 1

    attempt()
    return seen
