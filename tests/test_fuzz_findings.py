"""What the fuzzer once found stays mended, and the laws that it holds inputs against hold for its seeds."""

from __future__ import annotations

from importlib import import_module

import pytest

from batch import exact
from batch.answers import Schema, Unfit
from batch.formats.values import kind
from batch.records import Answer

from .fuzzing import FOUND, TARGETS, inputs


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_breaks_a_law(target: str) -> None:
    law = import_module(f"tests.fuzzing.{target}")
    broken = []
    for name, data in inputs(target):
        try:
            law.check(data)
        except Exception as error:  # all of them are worth knowing
            broken.append(f"{name} {data[:80]!r}: {type(error).__name__} {error}")
    assert broken == []


def test_everything_that_was_found_is_replayed() -> None:
    assert {path.name for path in FOUND.iterdir() if path.is_dir()} <= set(TARGETS)


@pytest.mark.parametrize("text", ["[" * 300 + "]" * 300, "[" * 980 + "]" * 980])
def test_an_answer_that_nests_too_deeply_does_not_fit(text: str) -> None:
    with pytest.raises(Unfit, match=r"nested too deeply|no JSON"):
        Schema('{"type":"object"}').fit(Answer(text, "m", "stop", 1, 1, b"{}"))


def test_an_exponent_beyond_all_measure_is_no_crash() -> None:
    with pytest.raises(Unfit, match="exponent"):
        Schema("{}").fit(Answer("[1e-99999999999999999999999]", "m", "stop", 1, 1, b"{}"))
    assert kind(exact.loads(b"0.5e-99999999999999999999999")) == "text"


def test_a_number_of_absurd_length_is_refused_in_words() -> None:
    for read in (exact.loads, exact.strict):
        with pytest.raises(ValueError, match=r"^a number of thousands of digits$"):
            read(b'{"a":' + b"1" * 5_000 + b"}")


@pytest.mark.parametrize("literal", ["0.10", "1e400", "-0", "-0.0", "123456789012345678901234567890"])
def test_numbers_keep_their_digits_beside_what_utf8_cannot_hold(literal: str) -> None:
    line = f'{{"a":{literal},"b":["\\ud800"]}}'.encode()
    assert exact.dumps(exact.loads(line)) == line
    assert (
        exact.dumps({1: [exact.loads(literal.encode()), float("nan"), "\ud800"]})
        == f'{{"1":[{literal},null,"\\ud800"]}}'.encode()
    )
