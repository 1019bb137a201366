r"""Prompt text: "text[:weight[:stop]] | text[:weight[:stop]] | ...".

A weight is a number after the last colon, unless that colon directly follows a digit: "a clock at 10:30" and
"a 16:9 photo" are plain text, and "a clock at 10:30 :2" (with a space) has the weight 2. A stop has a decimal point;
its sign is the weight's, whether written or not. `\|` and `\:` write a plain bar and a plain colon.
"""

import math
import re
from dataclasses import dataclass

from ..errors import UsageError

NUMBER = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
STOP = r"[-+]?\d*\.\d+"  # with a decimal point, so that "Verse: 3:16" and "Time: 10:30" stay text
MAX_STOP = 4.93  # half of pi squared, the largest distance
TRAILER = re.compile(rf"(?P<text>(?:.*[^\d\\])?):\s*(?P<weight>{NUMBER})(?::\s*(?P<stop>{STOP}))?\s*", re.DOTALL)
MAX_LENGTH = 2000
NEGATIVE_STOP = -0.95  # a negative prompt stops pushing at a distance of 0.95 (an angle of 79 degrees)


@dataclass(frozen=True)
class Prompt:
    """A text to move towards (weight > 0) or away from (weight < 0).

    `stop` is a distance, half the squared angle, with the weight's sign (Crowson's convention): a positive prompt does
    not pull a cutout that is nearer than `stop`, a negative one does not push a cutout that is farther than `-stop`.
    """

    text: str
    weight: float = 1.0
    stop: float = -math.inf


def parse_prompts(source: str) -> list[Prompt]:
    """Return the prompts of a prompt text, in order.

    Raises UsageError for an empty or unprintable prompt, and if all weights are zero.
    """
    if len(source) > MAX_LENGTH:
        raise UsageError(f"the prompt has {len(source)} characters, more than {MAX_LENGTH}", "shorten it")
    if any(0xD800 <= ord(c) < 0xE000 for c in source):
        raise UsageError("the prompt holds bytes that are not valid text", "check the terminal's encoding (UTF-8)")
    if any(ord(c) < 32 and c not in "\t\n\r" for c in source):
        raise UsageError("the prompt holds control characters", "remove them")
    prompts = [_parse_one(part) for part in re.split(r"(?<!\\)\|", source)]
    if all(p.weight == 0 for p in prompts):
        raise UsageError("every prompt has the weight 0", "give at least one another weight, or none")
    return prompts


def _parse_one(part: str) -> Prompt:
    match = TRAILER.fullmatch(part)
    text = match["text"] if match else part
    weight = float(match["weight"]) if match else 1.0
    stop = float(match["stop"]) if match and match["stop"] else None
    text = " ".join(text.replace(r"\|", "|").replace(r"\:", ":").split())
    if not text:
        what = f"there is no text before the weight in {part.strip()!r}" if part.strip() else "the prompt is empty"
        raise UsageError(what, 'say what to draw, e.g. vqclip generate "a red heart"')
    if not math.isfinite(weight) or abs(weight) > 1000:
        raise UsageError(
            f"the weight {weight:g} of {text!r} is out of range", r"use -1000 to 1000; a plain colon is \:"
        )
    if stop is None:
        return Prompt(text, weight, NEGATIVE_STOP if weight < 0 else -math.inf)
    if abs(stop) > MAX_STOP:
        raise UsageError(f"the stop {stop:g} of {text!r} is out of range", f"leave it out, or use 0.0 to {MAX_STOP}")
    return Prompt(text, weight, math.copysign(stop, weight))
