"""The columns that a row has, for who names one that it does not have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ..exact import dumps

MAX_PROMPT = 16 * 2**20
"""Characters a rendered text may have; a template of 19 characters can otherwise make 10^8 of them."""


def missing_column(name: str, values: Iterable[str], written: str = "") -> str:
    """The words for a column that is not there, with the one that may have been meant and those that are.

    Args:
        name: What was asked for.
        values: The columns that are there.
        written: How an expression is written in that place, with ``%s`` for itself; "" where none is understood.
    """
    return _missing_column(name, tuple(values), written)


@lru_cache(64)  # for a file of rows that all lack it
def _missing_column(name: str, columns: tuple[str, ...], written: str) -> str:
    if how := separated(columns):
        return f"no column {name!r}; the only one is {columns[0]!r}: {how}"
    import difflib

    near = difflib.get_close_matches(name, columns, n=1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    if near and written and not near[0].isidentifier():
        meant += f"write {written % item(near[0])}; "
    return f"no column {name!r}; {meant}the columns are {', '.join(map(repr, columns)) or 'none'}"


def separated(columns: tuple[str, ...]) -> str:
    """What to do about a table whose only column looks like several with another separator, or nothing."""
    if len(columns) != 1:
        return ""
    for sign, what, remedy in (
        ("\t", "tabs", "name it .tsv, or give --input-format tsv"),
        (";", "';'", "save it with commas as .csv, or with tabs as .tsv"),
        ("|", "'|'", "save it with commas as .csv, or with tabs as .tsv"),
        (",", "commas", "name it .csv, or give --input-format csv"),
    ):
        if re.search(rf"\S{re.escape(sign)}\S", columns[0]):  # with a space it is punctuation, not a separator
            return f"the file seems to be separated by {what}; {remedy}"
    return ""


def item(name: str) -> str:
    """How templates and conditions write a column of any name."""
    return f"row[{dumps(name).decode('utf-8')}]"
