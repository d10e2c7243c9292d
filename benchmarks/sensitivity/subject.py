"""A real model made ready to measure: traced, some of its calibration data, some held out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.zoo.case import Batches, ZooCase
from mpsearch.sensitivity.request import Request
from mpsearch.tasks import AbstractTask, Dataset
from mpsearch.tracing import TracedModel
from mpsearch.workflow.prepare import Prepared, prepare


@contextmanager
def ready(case: ZooCase, *, samples: int, held: int = 1, seed: int = 0) -> Iterator[Prepared]:
    """Yield the model with `samples` of its calibration data; its validation data is held out.

    On one thread, so that times are those of work; the folder of the data goes at the end.
    """
    parts = case.parts(seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with TemporaryDirectory() as folder:
            yield prepare(
                case.model,
                first_of(parts.calibration, samples=samples),
                task=case.task,
                validation=first_of(parts.validation, samples=held),
                test=None,
                runtime="simulation",
                workloads=None,
                cache=Path(folder),
                progress=None,
            )
    finally:
        torch.set_num_threads(threads)


def first_of(batches: Batches, *, samples: int) -> Batches:
    """Return about so many samples, evenly out of all: sources may be sorted by length."""
    whole = sum(len(next(iter(batch.values()))) for batch in batches)
    step = max(1, whole // samples)
    left = samples
    found = []
    for batch in batches:
        rows = {name: value[::step][:left] for name, value in batch.items()}
        taken = len(next(iter(rows.values())))
        if taken:
            found.append(rows)
        left -= taken
    return found


def request_of(traced: TracedModel, *, task: AbstractTask, data: Dataset, seed: int = 0) -> Request:
    """Return what a metric is asked for where no format matters, as for traces."""
    return Request(
        traced=traced,
        task=task,
        data=data,
        formats={},
        pairs={},
        quantizers={},
        dynamic_group=None,
        cache=None,
        progress=None,
        seed=seed,
    )
