"""`--steps`: over how many steps the calls of a pipeline's denoiser are recorded."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mpsearch.errors import UsageError

if TYPE_CHECKING:
    from mpsearch.tasks.denoiser_calls import DenoiserCalls


def over_steps(data: Path | None, steps: int | None) -> "Path | DenoiserCalls | None":
    """Return the data, as pictures that a pipeline makes in so many steps where that is asked for.

    Raises:
        UsageError: The data holds no texts or classes for pictures.
    """
    if steps is None:
        return data
    from mpsearch.workflow.reading import pictures_of

    pictures = pictures_of(data)
    if pictures is None:
        raise UsageError(
            f"--steps {steps} was given with data {str(data)!r}, which tells no pictures. Expected "
            "a .jsonl file of texts or classes, or no data, for a pipeline to make pictures. Leave "
            "--steps out where the denoiser's inputs are data."
        )
    return replace(pictures, steps=steps)
