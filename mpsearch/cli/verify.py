"""`mpsearch verify`: does a plan hold on this machine what it promises?"""

from pathlib import Path
from typing import Annotated

import typer

from mpsearch.cli.options import (
    CacheFolder,
    Json,
    Model,
    ModelFrom,
    PlanFile,
    Seed,
    Task,
    Threads,
    read_model,
)
from mpsearch.cli.session import session
from mpsearch.cli.shown import verification_table
from mpsearch.core.files import load_plan


def verify(
    plan: PlanFile,
    *,
    model: Model = None,
    model_from: ModelFrom = None,
    data: Annotated[Path, typer.Option("--data", help="Samples to verify on: .npz or .jsonl.")],
    task: Task = "auto",
    threads: Threads = 1,
    seed: Seed = 0,
    cache: CacheFolder = None,
    as_json: Json = False,
) -> None:
    """Measure whether a plan holds what it promises.

    Builds it on this machine and shows quality, latency and bytes beside the forecast.
    """
    with session(as_json=as_json) as run:
        loaded = load_plan(plan)
        source = read_model(model, model_from)
        from mpsearch.workflow.verify import verify as verified

        rows = verified(
            source,
            loaded,
            data=data,
            task=task,
            threads=threads,
            seed=seed,
            cache=cache,
            progress=run.progress,
        )
        run.answer(
            {"verification": rows, "passed": all(row.passed for row in rows)},
            shown=verification_table(rows),
        )
