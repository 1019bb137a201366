"""A group of values that is checked when it is made."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import UsageError
from ..text import brief, fault_of
from .ranges import describe_range


class Checked(BaseModel):
    """A frozen pydantic model; a wrong value is a UsageError of one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    def __init__(self, **values: Any) -> None:
        """Check all values. Raises UsageError."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"]))
            name = field.replace("_", "-")
            known = type(self).model_fields
            use = describe_range(known[field].metadata) if field in known else ""
            use = first.get("ctx", {}).get("expected") or use
            if first["type"] == "value_error":  # a check of ours says what should be there
                raise UsageError(f"{name}: {brief(first['input'])} is not valid", fault_of(first)) from None
            raise UsageError(f"{name}: {fault_of(first)}", f"use {use}" if use else "see: --help") from None
