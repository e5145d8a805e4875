"""A line says everything of a row and can be checked on its own."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.journal import frames
from batch.records import Answer, Attempt, Failure, Outcome

from . import STATE_KINDS, answered, failed

texts = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["\ud800", '","crc":"00000000"}', '","body":{', "\u2028\x00"]
)
statuses = st.none() | st.integers(100, 599)
attempts = st.lists(
    st.builds(Attempt, statuses, st.floats(0, 1e6), st.sampled_from(["", *STATE_KINDS]), st.booleans()), max_size=4
).map(tuple)
bodies = st.dictionaries(texts, texts | st.integers() | st.lists(texts), max_size=3).map(lambda one: json.dumps(one).encode())
results = st.builds(Answer, st.just(""), texts, texts, st.none(), st.none(), bodies, st.integers(200, 299)) | st.builds(
    Failure, st.sampled_from(STATE_KINDS), texts, statuses
)
outcomes = st.builds(
    Outcome,
    st.integers(0, 9),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 3) | st.integers(0, 10**15),
    results,
    attempts,
    st.floats(0, 4e9),
)


@settings(deadline=None)
@given(outcomes)
def test_a_line_gives_back_what_was_written(outcome: Outcome) -> None:
    found = frames.parse(frames.row(outcome))

    assert (found.key, found.occurrence, found.id) == (outcome.key, outcome.occurrence, outcome.id)
    assert math.isclose(found.started, outcome.started, abs_tol=0.001)
    assert [(one.status, one.kind, one.charged) for one in found.attempts] == [
        (one.status, one.kind, one.charged) for one in outcome.attempts
    ]
    assert all(math.isclose(a.seconds, b.seconds, abs_tol=1e-4) for a, b in zip(found.attempts, outcome.attempts, strict=True))
    assert found.status == outcome.result.status
    if isinstance(outcome.result, Answer):
        assert (found.body, found.failure) == (outcome.result.body, None)
    else:
        assert (found.body, found.failure) == (b"", outcome.result)


@settings(deadline=None)
@given(st.lists(outcomes, min_size=1, max_size=4))
def test_several_lines_are_read_as_each_of_them_is(several: list[Outcome]) -> None:
    lines = [frames.row(outcome) for outcome in several]
    answered = all(isinstance(outcome.result, Answer) for outcome in several)

    assert frames.answers(lines) == ([frames.parse(line) for line in lines] if answered else None)
    assert frames.answers([*lines[:-1], lines[-1].replace(b"1", b"2", 1)]) is None
    assert frames.answers([*lines[:-1], lines[-1][:-1]]) is None


@settings(deadline=None)
@given(outcomes)
def test_a_line_is_one_line_of_json_whose_first_member_tells_what_it_is(outcome: Outcome) -> None:
    line = frames.row(outcome)

    members = json.loads(line)
    assert line.index(b"\n") == len(line) - 1
    assert next(iter(members)) == "k"
    assert list(members)[-1] == "crc"


@settings(deadline=None)
@given(outcomes, st.integers(0, 10_000), st.integers(1, 255))
def test_one_changed_byte_is_noticed(outcome: Outcome, place: int, change: int) -> None:
    line = bytearray(frames.row(outcome))
    line[place % len(line)] ^= change

    assert not frames.sound(bytes(line))


def test_the_servers_bytes_are_kept_as_they_came() -> None:
    body = '{"a" : 0.10, "b":"\\ud83d\\ude00 😀", "n": 12345678901234567890123}'.encode()
    line = frames.row(Outcome(0, bytes(16), 0, Answer("", "", "", None, None, body)))

    assert b'"body":' + body + b',"crc"' in line


def test_what_would_break_the_framing_is_refused() -> None:
    with pytest.raises(ValueError, match="one line"):
        frames.row(Outcome(0, bytes(16), 0, Answer("", "", "", None, None, b'{"a":\n1}')))
    with pytest.raises(ValueError, match="no such kind"):
        frames.row(failed(1, 'x","crc'))


def test_a_note_is_no_row_and_a_row_no_note() -> None:
    note = frames.note("tick", {"gate": "open"}, 1.5)

    assert frames.parse_note(note) == {"tick": {"gate": "open"}, "at": 1.5}
    with pytest.raises(ValueError, match="no whole line"):
        frames.parse(note)
    with pytest.raises(ValueError, match="no whole line"):
        frames.parse_note(frames.row(answered(1)))
