"""Calls of a denoiser, recorded while its pipeline makes pictures: what it is measured on."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from mpsearch.errors import DataError
from mpsearch.tasks.collate import as_tensor
from mpsearch.tasks.dataset import Batch
from mpsearch.tracing.pipeline import LoadedPipeline

DEFAULT_STEPS: Final = 20  # what multistep solvers need (Lu et al., 2022: 15 to 20)
DEFAULT_PICTURES: Final = 8
_PICTURES_AT_ONCE: Final = 4


@final
@dataclass(frozen=True, kw_only=True)
class DenoiserCalls:
    """Make pictures and record what the denoiser is given at each step.

    Args:
        prompts: Texts, one per picture, of a pipeline that wants them.
        classes: Classes, one per picture, of a pipeline that wants them; none for classes drawn
            by `seed`.
        pictures: How many, where neither says so.
        steps: How often the scheduler calls the denoiser for one picture, as it will when deployed.
        seed: Of each picture's noise, which its place is added to.
    """

    prompts: Sequence[str] = ()
    classes: Sequence[int] = ()
    pictures: int = DEFAULT_PICTURES
    steps: int = DEFAULT_STEPS
    seed: int = 0


def record_calls(
    pipeline: LoadedPipeline, wanted: DenoiserCalls
) -> Iterator[tuple[Batch, tuple[int, ...]]]:
    """Yield batches of calls with their places: all steps of the first picture come first.

    A sample is one call for one picture, with its timestep; under guidance the call without
    the condition and the one with it are two samples. So a split by places keeps pictures
    whole, and what is held out was made from other noise.

    Raises:
        DataError: Prompts, classes, steps or pictures cannot be right.
    """
    told = _told(pipeline, wanted)
    for start in range(0, len(told), _PICTURES_AT_ONCE):
        part = told[start : start + _PICTURES_AT_ONCE]
        calls = _calls_of(pipeline, part, wanted=wanted, first=start)
        for step, call in enumerate(calls):
            rows = len(next(iter(call.values())))
            # Guidance doubles the batch: first every picture without its condition, or with it.
            halves = rows // len(part)
            per_picture = len(calls) * halves
            yield (
                call,
                tuple(
                    (start + row % len(part)) * per_picture + step * halves + row // len(part)
                    for row in range(rows)
                ),
            )


def _told(pipeline: LoadedPipeline, wanted: DenoiserCalls) -> list[dict[str, Any]]:
    """Return for each picture what the pipeline is told about it."""
    if wanted.steps < 1 or wanted.pictures < 1:
        raise DataError(
            f"{wanted.pictures} pictures of {wanted.steps} steps were asked for. Expected at least "
            "1 of each. Raise them."
        )
    if pipeline.condition == "text":
        if not wanted.prompts or not all(isinstance(each, str) for each in wanted.prompts):
            raise DataError(
                f"The pipeline makes pictures of texts, and {len(wanted.prompts)} were given. "
                'Expected some. Give strings, or a .jsonl with {"text": "..."} in each line.'
            )
        return [{"prompt": text} for text in wanted.prompts]
    if wanted.prompts:
        raise DataError(
            f"The pipeline makes pictures of {pipeline.condition}, and {len(wanted.prompts)} texts "
            "were given. Expected none. Leave them out."
        )
    if pipeline.condition == "nothing":
        return [{} for _ in range(wanted.pictures)]
    return [{"class_labels": number} for number in _classes(pipeline, wanted)]


def _classes(pipeline: LoadedPipeline, wanted: DenoiserCalls) -> list[int]:
    known = pipeline.classes
    generator = torch.Generator().manual_seed(wanted.seed)
    drawn = torch.randint(known, (wanted.pictures,), generator=generator).tolist()
    found = list(wanted.classes) or drawn
    if not all(0 <= number < known for number in found):
        raise DataError(
            f"The classes {found[:10]} were asked for. Expected numbers from 0 to {known - 1}. "
            "Change them."
        )
    return found


def _calls_of(
    pipeline: LoadedPipeline,
    told: Sequence[Mapping[str, Any]],
    *,
    wanted: DenoiserCalls,
    first: int,
) -> list[Batch]:
    """Run the pipeline once, for these pictures, and return what the denoiser was given."""
    seen: list[Batch] = []
    signature = inspect.signature(pipeline.denoiser.forward)

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = signature.bind(*args, **kwargs).arguments
        seen.append(_call(given, names=pipeline.input_names))

    # Each picture has noise of its own, whichever others it is made beside.
    noise = [torch.Generator().manual_seed(wanted.seed + first + at) for at in range(len(told))]
    how: dict[str, Any] = {key: [each[key] for each in told] for key in told[0]}
    if pipeline.condition == "nothing":
        how["batch_size"] = len(told)
    handle = pipeline.denoiser.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            pipeline.run(num_inference_steps=wanted.steps, generator=noise, **how)
    finally:
        handle.remove()
    return seen


def _call(given: Mapping[str, Any], *, names: Sequence[str]) -> Batch:
    """Return the inputs with samples in the first dimension; a timestep may stand for all."""
    rows = len(given[names[0]])
    call: dict[str, Tensor] = {}
    for name in names:
        value = torch.as_tensor(given[name])
        call[name] = as_tensor(value.expand(rows) if value.ndim == 0 else value, name=name).clone()
    return call
