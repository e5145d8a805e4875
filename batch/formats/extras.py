"""The libraries that some formats need and that come as extras of the project."""

from __future__ import annotations

from importlib.util import find_spec

from ..errors import JobError, installed_by

EXTRAS = {"parquet": ("pyarrow", "Parquet files need"), "zstd": ("zstandard", "zstd files need")}
"""Names of extras, as in `pyproject.toml`, to the module that they bring and to who needs it."""


def require(extra: str) -> None:
    """Look whether an extra is installed, without importing it.

    Raises:
        JobError: It is not.
    """
    module, who = EXTRAS[extra]
    if find_spec(module) is None:
        raise JobError(f"{who} one more library, the extra {extra!r}: {installed_by(extra)}")
