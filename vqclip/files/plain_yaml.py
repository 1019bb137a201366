"""YAML as plain values: no tags that make objects, no aliases, which can grow without bound."""

from collections.abc import Iterator
from typing import Any

import yaml

from .reading import LineError, YamlList


def load_yaml(text: str, *, unique: bool = False) -> Any:
    """Return what YAML text says; lists as YamlList. unique: refuse a name that is given twice. Raises ValueError."""
    try:
        return yaml.load(text, Loader=_UniqueLoader if unique else _PlainLoader)
    except yaml.MarkedYAMLError as error:
        if error.problem_mark is None:
            raise ValueError(str(error)) from None
        raise LineError(str(error.problem), error.problem_mark.line + 1) from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


class _PlainLoader(yaml.SafeLoader):
    """A SafeLoader that refuses aliases, and keeps the lines of a list's items."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise LineError("aliases are not read", mark.line + 1)
        return super().compose_node(parent, index)

    def construct_list(self, node: yaml.Node) -> Iterator[YamlList]:
        values = YamlList()
        yield values  # PyYAML builds in two steps: what a list holds is known later
        values.extend(self.construct_sequence(node))
        values.lines = tuple(item.start_mark.line + 1 for item in node.value)


class _UniqueLoader(_PlainLoader):
    """A _PlainLoader that refuses a name that is given twice."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in names:
                raise LineError(f"{key.value[:80]!r} is given twice", key.start_mark.line + 1)
            names.add(str(key.value))
        return super().construct_mapping(node, deep)


_PlainLoader.add_constructor("tag:yaml.org,2002:seq", _PlainLoader.construct_list)
