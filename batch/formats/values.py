"""One value in the form that another format can hold."""

from __future__ import annotations

import base64
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from .. import exact
from .table import MISSING


def as_json(value: Any) -> Any:
    """A value that JSON can hold: Parquet's dates as ISO 8601, decimals as numbers, bytes as text or base64."""
    if value is None or isinstance(value, (str, bool, int, exact.Number)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(inner) for inner in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return exact.Number(str(value)) if value.is_finite() else str(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return base64.b64encode(value).decode("ascii")
    return str(value)


def as_text(value: Any) -> str:
    """A value as a cell: text as it is, nothing and null as "", numbers as they were written, the rest as compact JSON."""
    if isinstance(value, str):
        return value
    if value is None or value is MISSING:
        return ""
    plain = as_json(value)
    return plain if isinstance(plain, str) else exact.dumps(plain).decode("utf-8")


def kind(value: Any) -> str:
    """What a JSON value is to a column: bool, small (an integer that a double holds), integer, double, text, or "" for null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "small" if abs(value) <= 1 << 53 else "integer" if -(1 << 63) <= value < 1 << 63 else "text"
    if isinstance(value, float):
        try:
            same = math.isfinite(value) and Decimal(str(value)) == Decimal(repr(float(value)))
        except InvalidOperation:
            return "text"  # an exponent that not even a Decimal holds
        return "double" if same else "text"
    return "text"


def column_type(kinds: set[str]) -> str:
    """The type of a column that holds values of these kinds exactly: bool, int64, double or string."""
    found = kinds - {""}
    if found == {"bool"}:
        return "bool"
    if found and found <= {"small", "integer"}:
        return "int64"
    if found and found <= {"small", "double"}:
        return "double"
    return "string"
