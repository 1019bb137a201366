"""A group of values that is checked when it is made."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import UsageError


class Checked(BaseModel):
    """A frozen pydantic model; a wrong value is a UsageError of one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    def __init__(self, **values: Any) -> None:
        """Check all values. Raises UsageError."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"])).replace("_", "-")
            reason = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            raise UsageError(f"{name}: {str(first['input'])[:80]!r} is not valid", f"it should be {reason}") from None
