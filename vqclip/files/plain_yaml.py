"""YAML as plain values: no tags that make objects, no aliases, which can grow without bound; names are texts."""

from typing import Any

import yaml

from .reading import MAX_DEPTH, MAX_DIGITS, LineError, YamlList

MAX_NODES = 200_000  # of a document: a second's work
STRING = "tag:yaml.org,2002:str"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def load_yaml(text: str, *, unique: bool = False) -> Any:
    """Return what YAML text says; lists as YamlList. unique: refuse a name that is given twice. Raises ValueError."""
    loader = _PlainLoader(text, unique)
    try:
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        if error.problem_mark is None:
            raise ValueError(str(error)) from None
        raise LineError(str(error.problem), error.problem_mark.line + 1) from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


# libyaml's parser takes a tenth of the time of Python's own; what it finds is composed here.
_Parser: Any = yaml.cyaml.CParser if yaml.__with_libyaml__ else yaml.SafeLoader


class _PlainLoader(yaml.composer.Composer, _Parser, yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """A SafeLoader that refuses aliases, tags, depth and more nodes than MAX_NODES, and keeps the lines of a list."""

    def __init__(self, text: str, unique: bool) -> None:
        _Parser.__init__(self, text)
        yaml.composer.Composer.__init__(self)
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)
        self._unique, self._depth, self._nodes = unique, 0, 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise LineError("aliases are not read", line)
        if event.tag not in (None, "!", STRING):
            raise LineError(f"the tag {event.tag[:40]} is not read", line)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise LineError(f"over {MAX_NODES:,} values: take .csv or .jsonl for so many", line)
        if self._depth > MAX_DEPTH:
            raise LineError(f"it is nested over {MAX_DEPTH} deep", line)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and node.tag in NUMBERS and len(node.value) > MAX_DIGITS:
            raise LineError(f"a number has over {MAX_DIGITS} digits", line)
        return node

    def construct_list(self, node: yaml.SequenceNode) -> YamlList:
        values = YamlList(map(self.construct_object, node.value))
        values.lines = tuple(item.start_mark.line + 1 for item in node.value)
        return values

    def construct_table(self, node: yaml.MappingNode) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise LineError("a list or a table is no name", line)
            if self._unique and key.value in values:
                raise LineError(f"{key.value[:80]!r} is given twice", line)
            values[key.value] = self.construct_object(value)
        return values


_PlainLoader.add_constructor("tag:yaml.org,2002:seq", _PlainLoader.construct_list)
_PlainLoader.add_constructor("tag:yaml.org,2002:map", _PlainLoader.construct_table)
