"""Text to tokens, by a `tokenizers` file."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mpsearch.errors import DataError
from mpsearch.tasks.collate import IDS, MASK, TYPES, Sample

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXT: Final = "text"
PAIR: Final = "text_pair"
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
) -> list[Sample]:
    """Return samples of tokens for records with "text" (and "text_pair"); other keys stay.

    Raises:
        DataError: A text is no string, or becomes no token.
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
        rest = {
            name: np.asarray(value) for name, value in record.items() if name not in (TEXT, PAIR)
        }
        samples.append(sample | rest)
    return samples
