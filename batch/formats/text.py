"""A text input: bytes expanded and, where a reader wants characters, decoded."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import chain

import msgspec

from ..errors import InputError, JobError
from .compression import EXPAND, PACKED_BLOCK
from .snapshot import Snapshot
from .table import BLOCK

BOM = codecs.BOM_UTF8


class Torn(str):
    """The last characters of a text that ends in the middle of one, with U+FFFD in its place."""

    __slots__ = ()


class Text(msgspec.Struct, frozen=True):
    """A text file.

    Attributes:
        compression: "", ".gz" or ".zst".
        encoding: A codec's normal name, as `codec` gives it.
        block: Bytes to read at a time.
    """

    snapshot: Snapshot
    compression: str = ""
    encoding: str = "utf-8"
    block: int = BLOCK

    @property
    def name(self) -> str:
        """What the file is called in messages."""
        return self.snapshot.name

    @property
    def plain(self) -> bool:
        """Whether the file's own bytes are UTF-8."""
        return not self.compression and self.encoding == "utf-8"

    def ends_a_row(self) -> bool:
        """Whether what is appended to the file is a row of its own: its last line is ended, and not blank."""
        size = self.snapshot.size
        if not self.plain or not size:
            return False
        tail = self.snapshot.source.read(max(0, size - 3), 3)
        return tail.endswith(b"\n") and not tail[:-1].removesuffix(b"\r").endswith((b"\n", b"\r"))

    def blocks(self) -> Iterator[bytes]:
        """The bytes, expanded."""
        blocks = self.snapshot.blocks(min(self.block, PACKED_BLOCK) if self.compression else self.block)
        return EXPAND[self.compression](blocks, self.name) if self.compression else blocks

    def utf8(self) -> Iterator[bytes]:
        """The bytes as UTF-8 without a byte order mark; not checked where they claim to be UTF-8 already."""
        if self.encoding != "utf-8":
            return (text.encode("utf-8", "surrogatepass") for text in self.characters())
        return self.blocks() if self.snapshot.start else _without_mark(self.blocks())

    def characters(self) -> Iterator[str]:
        """The text without a byte order mark; the last piece is `Torn` when the file ends in the middle of a character.

        Raises:
            InputError: A byte that is not in the encoding; everything before it was yielded.
        """
        decoder = codecs.getincrementaldecoder(self.encoding)()
        offset = self.snapshot.start
        begin = not offset
        for block in chain(self.blocks(), [b""]):
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeError as error:
                if not isinstance(error, UnicodeDecodeError):
                    raise InputError(
                        f"{self.name} is not {self.encoding}: {error}; name another encoding, for example --encoding utf-16-le"
                    ) from None
                sound = bytes(error.object[: error.start])
                if self.encoding == "utf-8" and sound:
                    yield sound.decode().removeprefix("\ufeff" if begin else "")
                if not block:
                    yield Torn("\ufffd")
                    return
                raise not_text(self.name, self.encoding, offset - pending + error.start, bytes(error.object)) from None
            offset += len(block)
            if begin and text:
                begin = False
                text = text.removeprefix("\ufeff")
            if text:
                yield text


def _without_mark(blocks: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    for block in blocks:
        head += block
        if len(head) >= len(BOM):
            break
    if head := head.removeprefix(BOM):
        yield head
    yield from blocks


def not_text(name: str, encoding: str, offset: int, found: bytes = b"") -> InputError:
    """The error of a file that is not in the encoding it is said to have.

    Args:
        name: The file.
        encoding: What it should be.
        offset: The first wrong byte's, from 0.
        found: The bytes in which it was found, to recognise UTF-16 by its mark.
    """
    wide = not offset and found.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    remedy = "--encoding utf-16" if wide else "--encoding, for example --encoding cp1252"
    return InputError(f"{name} is not {encoding.upper()}: byte {offset} (from 0) is wrong; name the encoding with {remedy}")


def codec(encoding: str) -> str:
    """A codec's normal name; `utf-8-sig` is `utf-8`, whose mark is always dropped.

    Raises:
        JobError: There is no such text encoding.
    """
    try:
        name = codecs.lookup(encoding).name
        codecs.getincrementaldecoder(name)().decode(b"", final=True)
        "".encode(name)
    except (LookupError, ValueError, TypeError):
        raise JobError(
            f"--encoding {encoding}: there is no such text encoding; common ones are utf-8, utf-16, cp1252, latin-1"
        ) from None
    return "utf-8" if name == "utf-8-sig" else name
