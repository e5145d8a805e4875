"""Faults that are found on the disk: torn tails of every kind."""

from __future__ import annotations

from collections.abc import Iterator

from .kills import together
from .story import Arena, Story, Try, read_journal

ROWS = 200


def torn(arena: Arena, tries: int) -> Iterator[Try]:
    """A torn tail behind a finished journal: half a line, NULs, noise, a line with a wrong checksum. It must cost nothing."""
    for number in range(tries):
        rng = arena.rng("torn", number)
        story = Story(arena, f"torn-{number}", ROWS, wait=0)
        begun = story.finish()
        content = story.journal.read_bytes()
        line = rng.choice([line for line in content.splitlines(keepends=True) if line.startswith(b'{"k"')])
        tail = [
            line[: rng.randrange(1, len(line))],
            bytes(rng.randrange(1, 9_000)),
            rng.randbytes(rng.randrange(1, 5_000)).replace(b"\n", b""),
            line[:-12] + b"00000000" + line[-4:],
            line[:-1],
        ][number % 5]
        with story.journal.open("ab") as file:
            file.write(tail)
        story.output.unlink(missing_ok=True)
        result = together(begun, story.judge(story.end(story.start()), frozenset({0}), in_flight=0))
        if result.again or story.seen != ROWS:
            result = Try(result.code, result.lost, result.again, (*result.broken, f"{story.seen - ROWS} rows were sent again"))
        yield together(result, _goes_on(story))


def _goes_on(story: Story) -> Try:
    """Append to what was repaired: new rows must not be glued to the torn tail."""
    story.prompts += [f"{story.name} more {number}" for number in range(20)]
    story.input.write_text("id,prompt\n" + "".join(f"{at:05},{prompt}\n" for at, prompt in enumerate(story.prompts)))
    story.output.unlink(missing_ok=True)
    result = story.judge(story.end(story.start()), frozenset({0}), in_flight=0)
    story.output.unlink(missing_ok=True)
    return together(result, story.finish())


def cut(arena: Arena, tries: int) -> Iterator[Try]:
    """The journal cut at any byte of its last lines: the rows cut off are asked again, no others."""
    for number in range(tries):
        rng = arena.rng("cut", number)
        story = Story(arena, f"cut-{number}", ROWS, wait=0, marks_survive=False)
        begun = story.finish()
        content = story.journal.read_bytes()
        story.journal.write_bytes(content[: len(content) - rng.randrange(1, 4_000)])
        left = read_journal(story.journal).answers
        forgotten = frozenset(prompt for prompt in story.durable if prompt not in left)
        story.output.unlink(missing_ok=True)
        result = together(begun, story.judge(story.end(story.start()), frozenset({0}), in_flight=0, forgotten=forgotten))
        if story.seen != ROWS + len(forgotten):
            result = Try(
                result.code,
                result.lost,
                result.again,
                (*result.broken, f"{story.seen - ROWS} rows were sent again instead of {len(forgotten)}"),
            )
        yield together(result, story.finish())
