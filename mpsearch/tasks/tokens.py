"""Text to tokens, by a `tokenizers` file."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy import ndarray

from mpsearch.errors import DataError
from mpsearch.tasks.collate import DECODER_IDS, IDS, MASK, TYPES, Sample

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXT: Final = "text"
PAIR: Final = "text_pair"
ANSWER: Final = "text_target"
# The position embeddings of common encoders end here; a tokeniser's own limit goes first.
_MAXIMUM_LENGTH: Final = 512


def load_tokenizer(file: Path | str) -> "Tokenizer":
    """Read a `tokenizer.json`; padding is switched off, truncation is at most 512 tokens.

    Raises:
        DataError: The file cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(Path(file).read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise DataError(
            f"Tokenizer {str(file)!r} cannot be read: {error}. Expected a tokenizer.json of the "
            "`tokenizers` library. Check the path."
        ) from error
    tokenizer.no_padding()
    if tokenizer.truncation is None:
        tokenizer.enable_truncation(_MAXIMUM_LENGTH)
    return tokenizer


def tokenised(
    records: Iterable[Mapping[str, Any]],
    *,
    tokenizer: "Tokenizer",
    input_names: Sequence[str],
    decoder_start: int | None = None,
) -> list[Sample]:
    """Return samples of tokens for records with "text" (and "text_pair"); other keys stay.

    Where the model takes the tokens of an answer, they are those of "text_target" after
    `decoder_start`.

    Raises:
        DataError: A text is no string or becomes no token, or an answer is missing.
    """
    samples: list[Sample] = []
    for place, record in enumerate(records):
        texts = [record[key] for key in (TEXT, PAIR) if key in record]
        if not all(isinstance(text, str) for text in texts) or not texts:
            raise DataError(
                f"Sample {place} has the text {texts!r:.80}. Expected a string. Mend this sample."
            )
        encoding = tokenizer.encode(*texts)
        if not encoding.ids:
            raise DataError(
                f"Sample {place} has the text {texts!r:.80}, which holds no token. "
                "Expected words. Remove this sample."
            )
        sample = {IDS: np.array(encoding.ids), MASK: np.array(encoding.attention_mask)}
        if TYPES in input_names:
            sample[TYPES] = np.array(encoding.type_ids)
        if DECODER_IDS in input_names and DECODER_IDS not in record:
            sample[DECODER_IDS] = _answer(
                record, tokenizer=tokenizer, start=decoder_start, place=place
            )
        texts_of = (TEXT, PAIR, ANSWER)
        rest = {name: np.asarray(value) for name, value in record.items() if name not in texts_of}
        samples.append(sample | rest)
    return samples


def _answer(
    record: Mapping[str, Any], *, tokenizer: "Tokenizer", start: int | None, place: int
) -> ndarray:
    text = record.get(ANSWER)
    if not isinstance(text, str) or start is None:
        fact = (
            f"has the answer {text!r:.80}"
            if not isinstance(text, str)
            else "has an answer, but the model's folder names no decoder_start_token_id"
        )
        raise DataError(
            f"Sample {place} {fact}. Expected a string in {ANSWER!r} beside {TEXT!r}, and that "
            f"token, since the model is given its answer. Add it, or give {DECODER_IDS!r}."
        )
    return np.array([start, *tokenizer.encode(text).ids])
