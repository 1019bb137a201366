"""The lowest versions: those that are tested are those that pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_tested_versions_are_the_lowest_that_are_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    allowed = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in wanted)
    tested = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "examples/packaging/lowest.txt").read_text(), re.M))
    assert {name.lower().replace("_", "-") for name in allowed} == set(tested)
    for name, lowest in allowed.items():
        version = tested[name.lower().replace("_", "-")]
        assert f"{version}.0.0".startswith(f"{lowest}.") or version == lowest, name
