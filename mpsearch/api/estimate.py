"""How long a job will take and how much memory: from sizes of files, without reading them.

A rule of thumb, not a measurement: a straight line through how long a search of MiniLM-L6
(90 MB) took on two cores of a shared AMD EPYC. Slope and memory were not checked on others.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, final

from pydantic import BaseModel, Field

from mpsearch.jobs.request import JobRequest
from mpsearch.jobs.sources import Sources

_BASIS: Final = "a rule of thumb: sizes of the files, by a search of MiniLM-L6 on two cores"
_MEGABYTE: Final = 1e6
# (seconds of the smallest search, seconds per megabyte of weights).
_SECONDS: Final[Mapping[str, tuple[float, float]]] = {"simulation": (12.0, 0.6)}
_SECONDS_WITH_A_RUNTIME: Final = (15.0, 2.3)
# What of it effort moves: measuring sensitivities and refining.
_SHARE_OF_EFFORT: Final = 0.44
_USUAL_EFFORT: Final = 1.25
# Torch, a runtime and their libraries, before there is a model.
_LEAST_MEMORY: Final = 1.2e9
# Weights in full precision, their traced copy, the base file and plans that are tried.
_COPIES: Final = 6.0


@final
class Estimate(BaseModel):
    """What a job would take, by a rule of thumb; less for what is cached."""

    seconds: Annotated[float, Field(examples=[220.0])]
    memory_bytes: Annotated[int, Field(examples=[1_740_000_000])]
    model_bytes: int
    basis: str


def estimate(request: JobRequest, *, sources: Sources) -> Estimate:
    """Return what a job would take.

    Raises:
        AbsentError: Something that it names is not there.
        UsageError: Something is of a kind that is not read.
    """
    found = sources.model(request.model)
    files = _files_of(found) if isinstance(found, Path) else found.values()
    held = sum(path.stat().st_size for path in files)
    least, per_megabyte = _SECONDS.get(request.runtime, _SECONDS_WITH_A_RUNTIME)
    usual = least + per_megabyte * held / _MEGABYTE
    more = _SHARE_OF_EFFORT * (request.effort / _USUAL_EFFORT - 1)
    return Estimate(
        seconds=round(usual * (1 + more), 1),
        memory_bytes=int(_LEAST_MEMORY + _COPIES * held),
        model_bytes=held,
        basis=_BASIS,
    )


def _files_of(place: Path) -> Iterable[Path]:
    return [path for path in place.iterdir() if path.is_file()] if place.is_dir() else [place]
