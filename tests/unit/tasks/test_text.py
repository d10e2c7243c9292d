"""Laws of the sentences that every Python ships."""

import pytest

from mpsearch.errors import DataError
from mpsearch.tasks.text import english_sentences, text_parts


def test_sentences_are_prose_of_5_to_60_words_and_unique() -> None:
    sentences = english_sentences()
    assert len(set(sentences)) == len(sentences) > 1200
    assert {len(sentence.split()) for sentence in sentences} <= set(range(5, 61))
    assert all(sentence[0].isupper() and sentence[-1] in ".!?" for sentence in sentences)
    assert not any("::=" in sentence or "  " in sentence for sentence in sentences)


def test_a_known_sentence_is_whole() -> None:
    expected = (
        "Assert statements are a convenient way to insert debugging assertions into a program:"
    )
    assert not any(expected in sentence for sentence in english_sentences())
    assert 'Assignments to "__debug__" are illegal.' not in english_sentences()  # four words
    known = "The value for the built-in variable is determined when the interpreter starts."
    assert known in english_sentences()


def test_parts_cover_everything_and_share_nothing() -> None:
    parts = text_parts()
    every = (*parts.calibration, *parts.validation, *parts.test)
    assert sorted(every) == sorted(english_sentences())
    assert len(parts.calibration) > len(parts.test) > len(parts.validation) > 100


def test_a_smaller_part_is_the_beginning_of_a_larger_one() -> None:
    small, large = text_parts(calibration=10, test=5), text_parts()
    assert small.calibration == large.calibration[:10]
    assert small.test == large.test[:5]
    assert small.validation == large.validation


@pytest.mark.parametrize("count", [0, -1, 10**6])
def test_more_sentences_than_there_are_is_an_error(count: int) -> None:
    with pytest.raises(DataError, match="were asked for in part 'test'"):
        text_parts(test=count)
