r"""Prompt text: "text[:weight[:stop]] | text[:weight[:stop]] | ...".

A weight is a number after the last colon. One that directly follows a digit needs a sign, a decimal or a percent sign
there: "a clock at 10:30" and "a 16:9 photo" are plain text, "unreal engine 5:-1" and "a clock at 10:30 :2" (with a
space) have weights. A stop has a decimal point; its sign is the weight's, whether written or not. `\|` and `\:` write a
plain bar and a plain colon; bars in brackets are plain. A weight in braces is a curve of the run's progress
(curves.py), "a castle:{0: 1, 0.6: 0} | ruins:{0: 0, 1: 1}", and may have a stop too. Also understood: "text::2
text::-1", "(text:1.3)" where that is all, full-width colons and bars, other minus signs, decimal commas.
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UsageError
from ..text import brief
from .curves import Curve

SIGN = "[-+\u2212\u2013]"  # hyphen, plus, minus, dash
DIGITS = r"(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
SPECIAL = r"\d+,\d{1,2}|\d+(?:[.,]\d+)?\s?%"  # 1,5 and 50%
NUMBER = rf"{SIGN}?(?:{SPECIAL}|{DIGITS})"
SURE = rf"(?:{SIGN}{DIGITS}|{SIGN}?(?:{SPECIAL}|\d*\.\d+))"  # what is no minute and no side of a ratio
STOP = r"[-+]?\d*\.\d+"  # with a decimal point, so that "Verse: 3:16" and "Time: 10:30" stay text
MAX_STOP = 4.93  # half of pi squared, the largest distance
COLON, BAR = "[:\uff1a]", "[|\uff5c]"
END = rf"(?:{COLON}\s*(?P<stop>{STOP}))?\s*"
TRAILER = re.compile(rf"(?P<text>(?:.*[^\d\\])?){COLON}\s*(?P<weight>{NUMBER}){END}", re.DOTALL)
TRAILER_OF_DIGIT = re.compile(rf"(?P<text>.*?\d){COLON}\s*(?P<weight>{SURE}){END}", re.DOTALL)
CURVE = re.compile(rf"(?P<text>(?:.*[^\\])?){COLON}\s*\{{(?P<curve>[^{{}}]*)\}}{END}", re.DOTALL)
WEIGHED = re.compile(rf"(?P<head>.*[^\\]){COLON}\s*(?:\{{(?P<curve>[^{{}}]*)\}}|(?P<weight>{NUMBER}))\s*", re.DOTALL)
IN_PARENTHESES = re.compile(rf"\s*\((?P<text>[^()]*[^()\d\\]){COLON}\s*(?P<weight>{NUMBER})\s*\)\s*")
DOUBLE_COLON = re.compile(rf"(?<!\\)::({NUMBER})?(?=\s|$)")
BRACKETED = re.compile(rf"\[[^][{{}}]*{BAR}[^][{{}}]*\]|\{{[^][{{}}]*{BAR}[^][{{}}]*\}}")
MAX_LENGTH = 2000
WEIGHTS = -1000.0, 1000.0  # the least and the largest
TIMES = tuple(k / 100 for k in range(101))  # of a run, where it is not known yet how many steps that has
NEGATIVE_STOP = -0.95  # a negative prompt stops pushing at a distance of 0.95 (an angle of 79 degrees)


@dataclass(frozen=True)
class Prompt:
    """A text to move towards (weight > 0) or away from (weight < 0).

    `stop` is a distance, half the squared angle, with the weight's sign (Crowson's convention): a positive prompt does
    not pull a cutout that is nearer than `stop`, a negative one does not push a cutout that is farther than `-stop`.
    """

    text: str
    weight: float | Curve = 1.0
    stop: float | None = -math.inf  # of a curve as it is written, with any sign; None: as suits the weight's sign

    def at(self, t: float) -> tuple[float, float]:
        """Return the weight and the stop when a share `t` of the run is done."""
        if isinstance(self.weight, Curve):
            weight = self.weight.at(t)
            return weight, _signed(self.stop, weight)
        return self.weight, _signed(None, self.weight) if self.stop is None else self.stop

    @property
    def pulls(self) -> bool:
        """Whether it is moved towards, at any time of the run."""
        values = self.weight.values(TIMES, *WEIGHTS) if isinstance(self.weight, Curve) else [self.weight]
        return max(values) > 0


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
    prompts = [prompt for part in _split(source) for prompt in _parse_part(part)]
    if all(p.weight == 0 for p in prompts):
        raise UsageError("every prompt has the weight 0", "give at least one another weight, or none")
    return prompts


def _split(source: str) -> list[str]:
    """Return the parts between bars; those in brackets, or behind a backslash, separate nothing."""
    plain = {at for match in BRACKETED.finditer(source) for at in range(*match.span())}
    bars = [match.start() for match in re.finditer(rf"(?<!\\){BAR}", source) if match.start() not in plain]
    return [source[a + 1 : b] for a, b in itertools.pairwise([-1, *bars, len(source)])]


def _parse_part(part: str) -> list[Prompt]:
    """Return the prompt of a part, or those of "text::2 text::-1"."""
    pieces = DOUBLE_COLON.split(part)  # text, weight or None, text, ...
    if not any(pieces[1::2]):
        return [_parse_one(part)]
    weights = [weight or "1" for weight in pieces[1::2]]
    prompts = [_prompt(text, weight) for text, weight in zip(pieces[::2], weights, strict=False)]
    return [*prompts, _parse_one(pieces[-1])] if pieces[-1].strip() else prompts


def _parse_one(part: str) -> Prompt:
    if match := CURVE.fullmatch(part):
        return _prompt(match["text"], match["curve"], match["stop"], part, curve=True)
    for pattern in (IN_PARENTHESES, TRAILER, TRAILER_OF_DIGIT):
        if match := pattern.fullmatch(part):
            return _prompt(match["text"], match["weight"], match.groupdict().get("stop"), part)
    return _prompt(part)


def _number(text: str) -> float:
    """Return a number as people write it: 1.5, 1,5, 50%, with any minus sign."""
    plain = re.sub("[\u2212\u2013]", "-", text).replace(",", ".")
    return float(plain.rstrip("% ")) / 100 if plain.endswith("%") else float(plain)


def _prompt(
    text: str, weight_text: str = "1", stop_text: str | None = None, part: str = "", *, curve: bool = False
) -> Prompt:
    stop = float(stop_text) if stop_text else None
    part, text = part or text, " ".join(re.sub(r"\\([|:\uff5c\uff1a])", r"\1", text).split())
    if not text:
        what = f"there is no text before the weight in {part.strip()!r}" if part.strip() else "the prompt is empty"
        raise UsageError(what, 'say what to draw, e.g. vqclip generate "a red heart"')
    if stop is not None and abs(stop) > MAX_STOP:
        raise UsageError(f"the stop {stop:g} of {text!r} is out of range", f"leave it out, or use 0.0 to {MAX_STOP}")
    if curve:
        weights = Curve.parse(f"the weight of {brief(text)}", weight_text)
        weights.values(TIMES, *WEIGHTS)
        return Prompt(text, weights, stop)
    weight = _number(weight_text)
    if not math.isfinite(weight) or abs(weight) > WEIGHTS[1]:
        what = f"the weight {weight:g} of {text!r} is out of range"
        raise UsageError(what, r"use -1000 to 1000; a plain colon is \:")
    return Prompt(text, weight, _signed(stop, weight))


def split_weight(text: str) -> tuple[str, str | None]:
    """Return what stands before a weight, and the weight, a number or a curve; None where there is none."""
    match = WEIGHED.fullmatch(text)
    if not match:
        return text, None
    curve = match["curve"]
    return match["head"].strip(), str(_number(match["weight"])) if curve is None else curve


def parse_noise(source: str) -> tuple[int, Prompt]:
    """Return the seed of a noise prompt, "SEED[:WEIGHT]", and its weight. Raises UsageError."""
    seed, weight = split_weight(source)
    if not (seed.strip().isascii() and seed.strip().isdecimal() and len(seed.strip()) < 19):
        raise UsageError(f"the noise prompt {brief(source)} has no seed", "write a whole number, and a weight: 14:0.3")
    curve = weight is not None and not re.fullmatch(NUMBER, weight)
    prompt = _prompt(f"noise {seed.strip()}", weight or "1", curve=curve)
    return int(seed), Prompt(prompt.text, prompt.weight, None)


def _signed(stop: float | None, weight: float) -> float:
    """Return the stop of a weight by what is written of it."""
    if stop is None:
        return NEGATIVE_STOP if weight < 0 else -math.inf
    return math.copysign(stop, weight)


def format_prompts(prompts: Sequence[Prompt]) -> str:
    """Return prompt text that `parse_prompts` reads back to the same."""
    return " | ".join(map(_format, prompts))


def _format(prompt: Prompt) -> str:
    text, weight, stop = re.sub(rf"({COLON}|{BAR})", r"\\\1", prompt.text), prompt.weight, prompt.stop
    if isinstance(weight, Curve):
        return f"{text}:{{{weight.text}}}" + ("" if stop is None else f":{stop:f}")
    if stop in (None, _signed(None, weight)):
        return text if weight == 1 else f"{text} :{weight!r}"
    return f"{text} :{weight!r}:{abs(stop or 0.0):f}"


def prompt_notes(source: str) -> list[str]:
    """Return a line for what in a prompt text looks like more than text, and is read as text.

    Raises what `parse_prompts` raises.
    """
    prompts, notes = parse_prompts(source), []
    for prompt in prompts:
        for pattern, why in LOOKS:
            if match := re.search(pattern, prompt.text):
                notes.append(f"{brief(match[0].strip())} is read as text: {why}")
    if not any(prompt.pulls for prompt in prompts):
        notes.append("all weights are negative: nothing says what to draw")
    return list(dict.fromkeys(notes))


AT_END = "a weight stands at the end of a prompt, text:1.3 | text"
OUTSIDE = "commands and options stand outside of the prompt's quotes"
# What looks like more than text: patterns, and what to do instead.
LOOKS = (
    (r"(?<!\S)--[a-z][\w-]*(?: [^\s-]\S*)?|(?<!\S)-[A-Za-z] ?\d+\b|^/imagine\b", OUTSIDE),
    (rf"(?<=\S)\s+{SIGN}{DIGITS}$|\(\([^()]*\)\)|(?<=.)\[[^][{{}}:|]+\]|\[[^][{{}}:|]+\](?=.)", AT_END),
    (BRACKETED.pattern, "alternatives are written as {red|blue}"),
    (rf"\([^()]*{COLON}\s*{NUMBER}\s*\)", AT_END),
    (r"\[[^][]*:[^][]*:\s*\d*\.?\d+\s*\]", "prompts that go and come are text:{0: 1, 1: 0} | text:{0: 0, 1: 1}"),
    (rf"(?<=[^\d\s:]){COLON}\s*{SIGN}?(?:\d*\.\d+(?=[\s,;])|\d+(?=\s*[,;]))", AT_END),
    (r"(?<=[a-z,] )(AND|BREAK)(?= )", "join prompts with |"),
    (r"(?i)\bsteps: \d+, .*", "settings are options: --steps, --seed, --size"),
    (r"(?<!\S)###.*|(?i:\bnegative prompt:.*)", "what is not wanted is a prompt with a negative weight: text:-1"),
    (r"<\w+:[^<>]+>", "no networks are loaded by a prompt"),
    (r"\S*::(?=[-+.\d\s]|$)", "join prompts with |, and write weights as text:2"),
    (r"(?<=\s)\^(?=\s)", "vqclip story takes each scene as a prompt of its own"),
    (r"""^\{\s*["']?\d+["']?\s*:""", "vqclip story takes each scene as a prompt of its own, and their frames as --at"),
    (r"(?<!\w)__\w+__(?!\w)", "lists are filled in by vqclip generate and batch"),
)
