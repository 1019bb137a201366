"""A group of values that is checked when it is made."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import UsageError
from ..text import brief
from .ranges import describe_range

OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")


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
            name, value = field.replace("_", "-"), brief(first["input"])
            if first["type"] in OUT_OF_RANGE and field in type(self).model_fields:
                use = describe_range(type(self).model_fields[field].metadata)
                raise UsageError(f"{name}: {value} is out of range", f"use {use}") from None
            if first["type"] == "literal_error":
                raise UsageError(f"{name}: {value} is unknown", f"use {first['ctx']['expected']}") from None
            reason = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            raise UsageError(f"{name}: {value} is not valid", f"it should be {reason}") from None
