"""A model whose values are checked when it is made."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import UsageError


class Checked(BaseModel):
    """A frozen pydantic model; what is wrong with a value is a UsageError of one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        """Check all values. Raises UsageError."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"])).replace("_", "-")
            reason = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"{name}: {reason} (given: {str(first['input'])[:80]})", "see: --help") from None
