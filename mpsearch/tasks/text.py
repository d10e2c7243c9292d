"""English sentences that come with every Python: the prose of its language reference."""

import hashlib
import importlib
import re
from dataclasses import dataclass
from typing import Final, final

from mpsearch.errors import DataError

_WORDS: Final = range(5, 61)
# Below this share of letters and spaces a sentence is code or a table.
_LETTERS: Final = 0.85
_BUCKETS: Final = 10
_VALIDATION, _TEST = 7, 8  # of 10 buckets: 0..6 calibrate, 7 validates, 8 and 9 test
_BULLET: Final = re.compile(r"^\s*(?:[*-]|\d+\.)\s+")
_EMPHASIS: Final = re.compile(r"(?<![\w\"*])\*{1,2}([^*\s](?:[^*]*[^*\s])?)\*{1,2}(?![\w\"*])")
_HEADING: Final = re.compile(r"PEP \d+ - ")
_BROKEN_WORD: Final = re.compile(r"(?<=[a-z])(\w)- (?=[a-z])")
# A stop, a closing quote perhaps, then a capital; not after "e.g." or a single letter.
_END: Final = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bcf)(?<!\b\w)[.!?][\")”\u2019]?\s+(?=[\"“(]?[A-Z])"
)


@final
@dataclass(frozen=True, kw_only=True)
class TextParts:
    """Sentences in three parts that share none."""

    calibration: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def english_sentences() -> tuple[str, ...]:
    """Return unique sentences of 5 to 60 words of prose, in the order of the reference.

    The same on every run of one Python version. Read from `pydoc_data.topics`.

    Example:
        >>> len(english_sentences()) > 1000
        True
    """
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    found: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            found.update(dict.fromkeys(filter(_is_prose, _sentences(paragraph))))
    return tuple(found)


def text_parts(
    *, calibration: int | None = None, validation: int | None = None, test: int | None = None
) -> TextParts:
    """Return the sentences split by their hash, 70 : 10 : 20, each part cut to its size.

    A hash decides the part and the order, so a part never depends on the size of another.

    Raises:
        DataError: A part has fewer sentences than asked for.

    Example:
        >>> parts = text_parts(calibration=100, validation=50, test=50)
        >>> set(parts.calibration) & set(parts.test)
        set()
    """
    ranked = sorted(english_sentences(), key=_hash)
    parts: dict[str, list[str]] = {"calibration": [], "validation": [], "test": []}
    for sentence in ranked:
        bucket = _hash(sentence) % _BUCKETS
        part = "calibration" if bucket < _VALIDATION else "validation"
        parts["test" if bucket >= _TEST else part].append(sentence)
    sizes = {"calibration": calibration, "validation": validation, "test": test}
    for name, size in sizes.items():
        if size is not None and not 0 < size <= len(parts[name]):
            raise DataError(
                f"{size} sentences were asked for in part {name!r}, which has {len(parts[name])}. "
                "Expected 1 up to this number. Ask for fewer."
            )
    return TextParts(**{name: tuple(part[: sizes[name]]) for name, part in parts.items()})


def _sentences(paragraph: str) -> list[str]:
    lines = paragraph.strip("\n").split("\n")
    indents = {len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()}
    # The first line of an item stands left of the others; deeper ones in prose are code.
    if len(indents) > 1 or (not indents and not lines[0].rstrip().endswith(".")):
        return []
    joined = " ".join(" ".join(_BULLET.sub("", line) for line in lines).split())
    joined = _EMPHASIS.sub(r"\1", _BROKEN_WORD.sub(r"\1-", joined))
    ends = [match.end() for match in _END.finditer(joined)]
    return [joined[start:end].strip() for start, end in zip([0, *ends], [*ends, None], strict=True)]


def _is_prose(sentence: str) -> bool:
    words = sentence.split()
    plain = sum(character.isalpha() or character.isspace() for character in sentence)
    return (
        len(words) in _WORDS
        and sentence[0] in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        and sentence[-1] in ".!?"
        and not _HEADING.match(sentence)
        and plain / len(sentence) >= _LETTERS
        and not any(mark in sentence for mark in ("::=", ">>>", "=>", "->", "{", "}", "***", "==="))
    )


def _hash(sentence: str) -> int:
    return int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8], "big")
