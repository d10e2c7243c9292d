"""A plan made runnable: built in its runtime, or simulated where the runtime is none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import onnx
import torch
from torch import Tensor

from mpsearch.core.hardware import Workload, latency_key
from mpsearch.core.plan import Plan
from mpsearch.errors import DeploymentError
from mpsearch.execution import quantised, run
from mpsearch.export import export_plan, weight_bytes
from mpsearch.runtimes import (
    RUNTIMES,
    AbstractExecutable,
    AbstractRuntime,
    NoiseCheck,
    agrees_with_simulation,
)
from mpsearch.tasks import AbstractTask, Batch
from mpsearch.tracing import TracedModel
from mpsearch.verification.culprit import culprit_told


@final
@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A built plan: the file, the executable at the shapes of deployment, and a forward pass.

    `executable` is that of the first workload, `each` has one by the name of the latency of
    every workload where there are several. `agreement` compares the runtime's output with the
    simulation's at the shapes of deployment, where it is worst; None under runtime
    `simulation`, which has no executable.
    """

    plan: Plan
    forward: Callable[[Batch], Any]
    model: onnx.ModelProto | None = None
    executable: AbstractExecutable | None = None
    each: Mapping[str, AbstractExecutable] = field(default_factory=dict)
    weight_bytes: int | None = None
    threads: int = 1
    agreement: NoiseCheck | None = None


def deploy(
    traced: TracedModel,
    *,
    base: onnx.ModelProto | None,
    plan: Plan,
    task: AbstractTask,
    threads: int,
) -> Deployment:
    """Build the plan, assert its kernels, and compare its numbers with the simulation.

    Raises:
        DeploymentError: It does not compile, runs other kernels, or gives other numbers.
    """
    if plan.runtime == "simulation" or base is None:
        return Deployment(plan=plan, forward=lambda batch: simulate(traced, plan, batch=batch))
    runtime = RUNTIMES[plan.runtime]
    model = export_plan(base, plan)

    def attempt(settings: Mapping[str, str]) -> dict[str, tuple[AbstractExecutable, NoiseCheck]]:
        return _built(
            traced,
            plan,
            model=model,
            runtime=runtime,
            settings=settings,
            task=task,
            threads=threads,
        )

    try:
        built = attempt(plan.settings)
    except DeploymentError as error:
        told = culprit_told(
            attempt, settings=plan.settings, suspects=runtime.suspects(plan.settings)
        )
        raise DeploymentError(f"{error} {told}") from error
    anywhere = runtime.build(model, settings=plan.settings, threads=threads, workload=None)
    executables = {name: executable for name, (executable, _) in built.items()}
    return Deployment(
        plan=plan,
        forward=lambda batch: _forward(anywhere, batch=batch, names=traced.input_names),
        model=model,
        executable=next(iter(executables.values())),
        each=executables if len(built) > 1 else {},
        weight_bytes=weight_bytes(model),
        threads=threads,
        agreement=max(
            (check for _, check in built.values()), key=lambda check: check.error / check.limit
        ),
    )


def _built(
    traced: TracedModel,
    plan: Plan,
    *,
    model: onnx.ModelProto,
    runtime: AbstractRuntime,
    settings: Mapping[str, str],
    task: AbstractTask,
    threads: int,
) -> dict[str, tuple[AbstractExecutable, NoiseCheck]]:
    """Return an executable for each workload, each checked for its kernels and numbers."""
    built: dict[str, tuple[AbstractExecutable, NoiseCheck]] = {}
    for workload in plan.workloads:
        executable = runtime.build(model, settings=settings, threads=threads, workload=workload)
        executable.assert_kernels(plan)
        check = _checked(traced, plan, executable=executable, workload=workload, task=task)
        built[latency_key(workload.name)] = (executable, check)
    return built


def simulate(traced: TracedModel, plan: Plan, *, batch: Batch) -> Any:  # noqa: ANN401 - models return tensors, tuples, dicts
    """Return the raw output of the torch model behaving as if the plan were deployed."""
    with torch.no_grad(), quantised(traced, plan) as model:
        return run(model, batch)


def _checked(
    traced: TracedModel,
    plan: Plan,
    *,
    executable: AbstractExecutable,
    workload: Workload,
    task: AbstractTask,
) -> NoiseCheck:
    """Return how far a run is from its simulation, and refuse one that is too far."""
    agreement = _agreement(traced, plan, executable=executable, workload=workload, task=task)
    if not agreement.passed:
        raise DeploymentError(
            f"The plan's output in {plan.runtime!r} differs from its simulation by "
            f"{agreement.error:.1%} at {dict(workload.shapes)}. Expected at most "
            f"{agreement.limit:.1%}, twice what quantisation itself changes. Try another base, "
            "or another version of the runtime."
        )
    return agreement


def _agreement(
    traced: TracedModel,
    plan: Plan,
    *,
    executable: AbstractExecutable,
    workload: Workload,
    task: AbstractTask,
) -> NoiseCheck:
    batch = {
        name: _fitted(traced.example[name], shape=tuple(shape))
        for name, shape in workload.shapes.items()
    }
    built = _forward(executable, batch=batch, names=traced.input_names)
    outputs = {
        "found": built,
        "simulated": simulate(traced, plan, batch=batch),
        "plain": run(traced, batch),
    }
    arrays = {who: {"output": task.outputs(raw, batch).numpy()} for who, raw in outputs.items()}
    return agrees_with_simulation(
        arrays["found"], simulated=arrays["simulated"], plain=arrays["plain"]
    )


def _fitted(example: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    """Return the example repeated or cut to a shape."""
    repeats = [-(-wanted // have) for wanted, have in zip(shape, example.shape, strict=True)]
    return example.repeat(repeats)[tuple(slice(size) for size in shape)].contiguous()


def _forward(
    executable: AbstractExecutable, *, batch: Batch, names: tuple[str, ...]
) -> dict[str, Tensor]:
    outputs = executable.run({name: batch[name].numpy() for name in names})
    return {name: torch.from_numpy(np.array(value)) for name, value in outputs.items()}
