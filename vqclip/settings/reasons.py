"""What is wrong with a value, in plain words: pydantic's own are a programmer's."""

from collections.abc import Mapping
from typing import Any

PLAIN = {  # the type of pydantic's error -> words
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "int_type": "write a whole number",
    "float_parsing": "write a number",
    "float_type": "write a number",
    "string_type": "write text",
    "tuple_type": "write a list",
}


def plain(fault: Mapping[str, Any]) -> str:
    """Return what one of pydantic's errors says, without the field's name and the value."""
    reason = PLAIN.get(fault["type"]) or str(fault["msg"]).removeprefix("Value error, ")
    return reason[0].lower() + reason[1:]
