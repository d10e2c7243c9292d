"""What a user calls data, read for a model: files, arrays, pictures to make, or nothing at all."""

import inspect
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias, final

from torch import Tensor, nn

from mpsearch.errors import DataError
from mpsearch.tasks import Dataset, read_data
from mpsearch.tasks.collate import LABELS
from mpsearch.tasks.dataset import SYNTHETIC, Batch, spill
from mpsearch.tasks.denoiser_calls import DenoiserCalls, record_calls
from mpsearch.tasks.synthetic import SyntheticInputs, example_of, how_made, synthetic_batches
from mpsearch.tasks.tokens import TEXT
from mpsearch.tracing import LoadedModel, OnnxModel, TracedModel
from mpsearch.tracing.call import takes_structure
from mpsearch.tracing.pipeline import LoadedPipeline

_LOG = logging.getLogger("mpsearch.workflow")

Loaded: TypeAlias = nn.Module | TracedModel | LoadedModel | LoadedPipeline | OnnxModel
# Whatever `tasks.read_data` reads: files, arrays, texts, iterables of batches; pictures that a
# pipeline shall make; None for inputs made from the model's weights.
DataSource: TypeAlias = (
    Path
    | str
    | Dataset
    | Mapping[str, Any]
    | Iterable[Any]
    | DenoiserCalls
    | SyntheticInputs
    | None
)
_BATCH_SIZE: Final = 32


def input_names(source: Loaded) -> tuple[str, ...]:
    """Return the names of the model's inputs; of a plain module those without a default."""
    if not isinstance(source, nn.Module):
        return tuple(source.input_names)
    parameters = inspect.signature(source.forward).parameters.values()
    return tuple(
        parameter.name
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty
        and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    )


@final
@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads every part of the data of one model in the same way.

    Data is kept in a subfolder of `folder`; `model` is the model's own folder, where it has one.
    """

    source: Loaded
    folder: Path
    model: Path | None = None

    def read(self, data: DataSource) -> Dataset:
        """Return the data in batches on disk.

        Raises:
            DataError: It cannot be read, or there is none and the model does not say its inputs.
        """
        place = self.folder / "data"
        if isinstance(data, Dataset):
            return data
        if isinstance(self.source, LoadedPipeline):
            calls = pictures_of(data)
            if calls is not None:
                return spill(record_calls(self.source, calls), folder=place)
        if isinstance(data, DenoiserCalls):
            raise DataError(
                f"Pictures of {data.steps} steps were asked for of a {type(self.source).__name__}. "
                "Expected a diffusers folder, which makes them. Give the model's inputs as data."
            )
        if data is None or isinstance(data, SyntheticInputs):
            return self._synthetic(data or SyntheticInputs(), folder=place)
        return read_data(
            data,
            input_names=self._names(data),
            batch_size=self._batch_size(),
            folder=place,
            tokenizer=getattr(self.source, "tokenizer_file", None),
            model=self.model,
            decoder_start=getattr(self.source, "decoder_start", None),
        )

    def _names(self, data: DataSource) -> tuple[str, ...]:
        """Return the names of inputs; those of a model that takes a dict are the data's keys."""
        if not (isinstance(self.source, nn.Module) and takes_structure(self.source)):
            return input_names(self.source)
        first = data[0] if isinstance(data, list | tuple) and data else data
        if not isinstance(first, Mapping):
            raise DataError(
                f"The model takes a dict or a dataclass, and its data is a {type(data).__name__}. "
                "Expected arrays by name, or a list of dicts. Name the inputs."
            )
        return tuple(name for name in first if name not in LABELS)

    def _synthetic(self, wanted: SyntheticInputs, *, folder: Path) -> Dataset:
        """Make inputs, and say so: nothing that is measured on them is a promise."""
        module, example = self._module_and_example(wanted)
        _LOG.warning("%s", synthetic_told(how_made(module, example)))
        made = spill(synthetic_batches(module, example=example, wanted=wanted), folder=folder)
        return replace(made, fingerprint=SYNTHETIC + made.fingerprint)

    def _module_and_example(self, wanted: SyntheticInputs) -> tuple[nn.Module, Batch]:
        source = self.source
        if isinstance(source, nn.Module):
            return source, example_of(wanted)
        if isinstance(source, LoadedModel | TracedModel):
            example: dict[str, Tensor] = dict(source.example)
            return source.module, example_of(wanted) if wanted.shapes else example
        raise DataError(
            f"A {type(source).__name__} is given without data, and inputs are not made for it. "
            "Expected data. Pass some; a few dozen samples are enough to start."
        )

    def _batch_size(self) -> int:
        """Return how many samples are run at once: as many as an ONNX file fixes, if it does."""
        fixed = self.source.batch_size if isinstance(self.source, OnnxModel) else None
        return _BATCH_SIZE if fixed is None else fixed


def synthetic_told(how: str = "") -> str:
    """Say that there is no data, and what follows from it."""
    what = f" ({how})" if how else ""
    return (
        f"NO DATA WAS GIVEN: inputs were made from the model's own weights{what}. Losses, "
        "forecasts and measures of quality hold for these inputs, not for real ones. Give "
        "calibration data before you rely on the plan."
    )


def pictures_of(data: DataSource) -> DenoiserCalls | None:
    """Return which pictures a pipeline shall make, or None where its calls are given as data.

    Texts and classes have noise of their own, by what they say, so that other texts, for
    validation, meet other noise.

    Raises:
        DataError: A file of texts cannot be read.
    """
    if data is None:
        return DenoiserCalls()
    if isinstance(data, DenoiserCalls):
        return data
    if isinstance(data, str | Path):
        told = list(_lines(Path(data))) if Path(data).suffix == ".jsonl" else []
    else:
        told = list(data) if isinstance(data, list | tuple) else []
    seed = zlib.crc32(repr(told).encode())
    if told and all(isinstance(each, str) for each in told):
        return DenoiserCalls(prompts=told, seed=seed)
    if told and all(isinstance(each, int) for each in told):
        return DenoiserCalls(classes=told, seed=seed)
    return None


def _lines(path: Path) -> Iterator[Any]:
    """Yield the text or class of each line, or None where a line holds something else."""
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                record = json.loads(line)
                is_record = isinstance(record, dict)
                yield record.get(TEXT, record.get("class")) if is_record else None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"Data file {str(path)!r} cannot be read: {error}. Expected one JSON object per line, "
            'such as {"text": "..."} or {"class": 3}. Mend it.'
        ) from error
