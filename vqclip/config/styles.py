"""Words that are kept in files: styles (styles.toml) and lists (__colours__ is a line of wildcards/colours.txt).

Both are looked for in the folder you are in, then in that of one's own models.toml.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from ..errors import InputError, UsageError
from ..files.reading import decode, parse_toml, read_bytes, validate
from ..models.store import own_catalogue
from ..settings.expansion import expand, has_alternatives
from ..settings.prompts import Prompt, format_prompts, parse_prompts
from ..text import joined, nearest_of

MOST = 1000  # prompts of a text
STYLES, LISTS = "styles.toml", "wildcards"
MAX_FILE = 1_000_000  # bytes
HINT = f'write it into {STYLES}: [NAME], and below it prefix = "an oil painting of" or suffix = ", on canvas"'


def _plain(text: str) -> str:
    if has_alternatives(text):
        raise ValueError("a style has no alternatives")
    return text


Words = Annotated[str, AfterValidator(_plain)]


class Style(BaseModel):
    """Words around each prompt of positive weight, and prompts that are added to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    prefix: Words = ""
    suffix: Words = ""
    add: Words = ""

    def around(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Return prompts in this style. Raises UsageError."""
        suffix = self.suffix if not self.suffix or self.suffix[0] in ",.;:" else f" {self.suffix}"
        styled = [
            Prompt(" ".join(f"{joined(f'{self.prefix} ', p.text)}{suffix}".split()), p.weight, p.stop) if p.pulls else p
            for p in prompts
        ]
        return styled + (parse_prompts(self.add) if self.add.strip() else [])


def expand_prompts(source: str, styles: Sequence[str] = (), *, limit: int = MOST) -> list[str]:
    """Return every prompt that a text with alternatives ({a|b}, {1..5}, __list__) stands for, in these styles.

    Raises UsageError for braces that are not understood and for more than `limit` prompts, InputError for a file.
    """
    chosen = [read_style(name) for name in styles]
    return [styled(text, chosen) for text in expand(source, read_list, limit)]


def styled(source: str, styles: Sequence[Style]) -> str:
    """Return prompt text in styles, one after the other; without styles as it is."""
    if not styles:
        return source
    prompts = parse_prompts(source)
    for style in styles:
        prompts = style.around(prompts)
    return format_prompts(prompts)


def read_style(name: str) -> Style:
    """Return a style by its name. Raises InputError for a file, UsageError for a name that none has."""
    known: dict[str, Style] = {}
    for path in reversed(list(_places(STYLES))):
        tables = parse_toml(decode(read_bytes(path, MAX_FILE, HINT), str(path)), str(path), HINT)
        known |= {key: validate(Style, table, f"{path}: {key}", HINT) for key, table in tables.items()}
    if name not in known:
        near = nearest_of(name, known) if known else f": there is no {STYLES}"
        raise UsageError(f"there is no style {name!r}{near}", HINT)
    return known[name]


def read_list(name: str) -> list[str]:
    """Return the lines of a list, without blank ones and those that begin with #. Raises InputError."""
    file = f"{name}.txt"
    path = next((found for place in (f"{LISTS}/{file}", file) for found in _places(place)), None)
    if path is None:
        raise InputError(f"there is no list __{name}__", f"write its words into {LISTS}/{file}, one a line")
    lines = [line.strip() for line in decode(read_bytes(path, MAX_FILE), str(path)).split("\n")]
    if not (words := [line for line in lines if line and not line.startswith("#")]):
        raise InputError(f"{path} has no words", "write one a line")
    return words


def _places(name: str) -> Iterator[Path]:
    return (path for folder in (Path(), own_catalogue().parent) if (path := folder / name).is_file())
