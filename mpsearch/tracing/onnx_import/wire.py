"""The bytes of an ONNX file: its structure without its weights, and where the weights lie.

Weights make up nearly all of a file. They are found by walking the protobuf wire format, left
on disk, and read one by one into the tensors that use them, so a file is never held twice.
Source: the encoding of protocol buffers, and the field numbers of `onnx.proto`.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, final

from mpsearch.errors import ModelError

Bytes: TypeAlias = mmap.mmap | bytes

# Field numbers of ModelProto, GraphProto and TensorProto.
_GRAPH: Final = 7
_INITIALIZER: Final = 5
_NAME: Final = 8
_RAW_DATA: Final = 9
_FLOAT_DATA: Final = 4  # packed 32-bit floats lie as raw ones do
_PAYLOADS: Final = frozenset({_RAW_DATA, _FLOAT_DATA})
# Smaller weights stay in the structure, where they cost little and are handy.
_SMALLEST_LEFT_OUT: Final = 4096
_LARGEST_STRUCTURE: Final = 512 * 2**20
_MOST_FIELDS: Final = 5_000_000
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT: Final = 10


@final
@dataclass(frozen=True, kw_only=True)
class Extent:
    """Where the bytes of a tensor lie in a file."""

    path: Path
    offset: int
    length: int


def read_structure(path: Path) -> tuple[bytes, dict[str, Extent]]:
    """Return the bytes of the model without its larger weights, and where those lie by name.

    Raises:
        ModelError: It cannot be read, is cut off, or is no ONNX file.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise _damaged(path, "is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _Walk(path, content).model()
    except OSError as error:
        raise ModelError(
            f"File {str(path)!r} cannot be read: {error.strerror or error}. Expected an ONNX file. "
            "Check the path."
        ) from error


@final
@dataclass(frozen=True, kw_only=True)
class _Field:
    number: int
    kind: int
    start: int  # of the tag
    value: int  # where the payload begins
    end: int


class _Walk:
    """Walks one file, and counts what it has seen so that no file can keep it busy."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path = path
        self.content = content
        self.extents: dict[str, Extent] = {}
        self.seen = 0

    def model(self) -> tuple[bytes, dict[str, Extent]]:
        parts: list[bytes] = []
        has_graph = False
        for field in self._fields(0, len(self.content)):
            is_graph = field.number == _GRAPH and field.kind == _LENGTH
            has_graph |= is_graph
            parts.append(self._graph(field) if is_graph else self._bytes(field))
        if not has_graph:
            raise _damaged(self.path, "holds no graph")
        if sum(map(len, parts)) > _LARGEST_STRUCTURE:
            raise _damaged(self.path, "has more structure than weights can explain")
        return b"".join(parts), self.extents

    def _graph(self, graph: _Field) -> bytes:
        parts: list[bytes] = []
        for field in self._fields(graph.value, graph.end):
            is_large = field.end - field.value > _SMALLEST_LEFT_OUT
            if field.number == _INITIALIZER and field.kind == _LENGTH and is_large:
                parts.append(self._tensor(field))
            else:
                parts.append(self._bytes(field))
        return _message(_GRAPH, b"".join(parts))

    def _tensor(self, tensor: _Field) -> bytes:
        fields = list(self._fields(tensor.value, tensor.end))
        names = [each for each in fields if each.number == _NAME and each.kind == _LENGTH]
        large = [
            each
            for each in fields
            if each.number in _PAYLOADS
            and each.kind == _LENGTH
            and each.end - each.value > _SMALLEST_LEFT_OUT
        ]
        if len(large) != 1 or not names:
            return self._bytes(tensor)
        name = self.content[names[-1].value : names[-1].end].decode(errors="replace")
        if name in self.extents:
            raise ModelError(
                f"File {str(self.path)!r} has two weights called {name!r}. Expected each name "
                "once. Export the model again."
            )
        (payload,) = large
        self.extents[name] = Extent(
            path=self.path, offset=payload.value, length=payload.end - payload.value
        )
        kept = b"".join(self._bytes(each) for each in fields if each is not payload)
        return _message(_INITIALIZER, kept)

    def _bytes(self, field: _Field) -> bytes:
        return self.content[field.start : field.end]

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        place = start
        while place < end:
            self.seen += 1
            if self.seen > _MOST_FIELDS:
                raise _damaged(self.path, f"has more than {_MOST_FIELDS} fields")
            tag, value = self._varint(place, end)
            number, kind = tag >> 3, tag & 7
            stop = self._end_of(kind, value, end=end)
            if stop is None or stop[1] > end or number == 0:
                raise _damaged(self.path, f"is cut off or damaged at byte {place}")
            yield _Field(number=number, kind=kind, start=place, value=stop[0], end=stop[1])
            place = stop[1]

    def _end_of(self, kind: int, value: int, *, end: int) -> tuple[int, int] | None:
        """Return where a field's payload begins and ends."""
        if kind == _VARINT:
            return value, self._varint(value, end)[1]
        if kind == _LENGTH:
            length, begin = self._varint(value, end)
            return begin, begin + length
        if kind in (_FIXED32, _FIXED64):
            return value, value + (4 if kind == _FIXED32 else 8)
        return None

    def _varint(self, place: int, end: int) -> tuple[int, int]:
        found = 0
        for count in range(_LONGEST_VARINT):
            if place + count >= end:
                break
            byte = self.content[place + count]
            found |= (byte & 0x7F) << (7 * count)
            if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
                return found, place + count + 1
        raise _damaged(self.path, f"is cut off or damaged at byte {place}")


def _message(number: int, content: bytes) -> bytes:
    return _encoded(number << 3 | _LENGTH) + _encoded(len(content)) + content


def _encoded(number: int) -> bytes:
    found = bytearray()
    while True:
        byte = number & 0x7F
        number >>= 7
        found.append(byte | (0x80 if number else 0))
        if not number:
            return bytes(found)


def _damaged(path: Path, fact: str) -> ModelError:
    return ModelError(
        f"File {str(path)!r} {fact}. Expected a whole ONNX file. Export or download it again."
    )
