"""The type of a setting that is a number, or a curve of the run's progress."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ..errors import UsageError
from .curves import Curve

MARKS = re.compile(r"\d|\b(t|pi)\b")  # any curve has one of them; another word is just no number


@dataclass(frozen=True)
class NumberOrCurve:
    """Stands in `Annotated` beside float or int: the setting may be a Curve too, of values in this range.

    `Settings.at` makes a number of it, for int a whole one; the range of a curve's values is checked over all steps.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of a number in this range, or of a Curve or its text; written down as text."""
        bounds = {key: bound for key, bound in vars(self).items() if bound is not None}
        number: Any = {**handler(kind), **bounds}

        def read(value: Any, validate: core_schema.ValidatorFunctionWrapHandler) -> Any:
            if isinstance(value, Curve):
                return value
            if isinstance(value, str) and MARKS.search(value) and not _is_number(value):
                try:
                    return Curve.parse("", value)
                except UsageError as error:
                    raise PydanticCustomError("curve", "{what}", {"what": error.what, "hint": error.hint}) from None
            return validate(value)

        text = core_schema.plain_serializer_function_ser_schema(_written)
        return core_schema.no_info_wrap_validator_function(read, number, serialization=text)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return what the JSON schema says: a number, or the text of a curve."""
        return {"anyOf": [handler(schema["schema"]), {"type": "string"}]}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _written(value: Any) -> Any:
    return str(value) if isinstance(value, Curve) else value
