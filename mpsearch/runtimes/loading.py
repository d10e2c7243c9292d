"""Open a plan's executable with the settings that it carries, and run it on anything."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import numpy as np
import onnx
from google.protobuf.message import (  # type: ignore[import-untyped]  # protobuf ships no types
    DecodeError,
)
from numpy import ndarray

from mpsearch.core.files import plan_from_dict
from mpsearch.core.plan import Plan
from mpsearch.errors import DataError, PlanError, UnsupportedFeatureError
from mpsearch.export.graph_edit import metadata
from mpsearch.export.qdq_onnx import PLAN_KEY
from mpsearch.runtimes.registry import RUNTIMES
from mpsearch.runtimes.runtime import AbstractExecutable
from mpsearch.runtimes.simulation import Simulation

_LOG = logging.getLogger("mpsearch.runtimes")
_ANY_SHAPE: Final = "any"
_THAT_RUN: Final = tuple(name for name in RUNTIMES if name != Simulation.name)


@final
@dataclass(frozen=True, kw_only=True)
class Runnable:
    """A plan's executable, ready to be called.

    Inputs of a shape that the plan was made for run on a model built for just that shape;
    others on one that takes any. Each is built at its first use. Not safe for several
    threads at once.
    """

    plan: Plan
    model: onnx.ModelProto
    threads: int
    _built: dict[str, AbstractExecutable] = field(default_factory=dict, repr=False)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Return the names of the inputs, in the order that arrays are taken in."""
        constants = {tensor.name for tensor in self.model.graph.initializer}
        names = (value.name for value in self.model.graph.input)
        return tuple(name for name in names if name not in constants)

    def __call__(self, *arrays: ndarray | Mapping[str, ndarray]) -> dict[str, ndarray]:
        """Run once and return {output name: array}.

        Args:
            arrays: One mapping from input names to arrays, or one array per input in the
                order of `input_names`.

        Raises:
            DataError: An input is missing, unknown, or of a shape the model does not take.
        """
        inputs = self._by_name(arrays)
        shapes = {name: array.shape for name, array in inputs.items()}
        return self._executable(shapes).run(inputs)

    def _by_name(self, arrays: tuple[ndarray | Mapping[str, ndarray], ...]) -> dict[str, ndarray]:
        if len(arrays) == 1 and isinstance(arrays[0], Mapping):
            return {name: np.asarray(array) for name, array in arrays[0].items()}
        if len(arrays) != len(self.input_names):
            raise DataError(
                f"{len(arrays)} arrays were passed. Expected {len(self.input_names)}, one for "
                f"each of {', '.join(self.input_names)}, or one dict of them by name."
            )
        return {
            name: np.asarray(array) for name, array in zip(self.input_names, arrays, strict=True)
        }

    def _executable(self, shapes: Mapping[str, tuple[int, ...]]) -> AbstractExecutable:
        for workload in self.plan.workloads:
            if {name: tuple(shape) for name, shape in workload.shapes.items()} == shapes:
                break
        else:
            workload = None
        key = _ANY_SHAPE if workload is None else workload.name
        if key not in self._built:
            runtime = RUNTIMES[self.plan.runtime]
            self._built[key] = runtime.build(
                self.model,
                settings=self.plan.settings or runtime.settings(self.plan.base),
                threads=self.threads,
                workload=workload,
            )
        return self._built[key]


def load(path: str | Path, threads: int | None = None) -> Runnable:
    """Open the ONNX file that a search or export wrote, with the settings it depends on.

    Builds the executables of the plan's workloads at once, so a file that does not run here
    says so here.

    Args:
        path: The file.
        threads: Threads of one inference; 1 unless told otherwise.

    Raises:
        PlanError: It is no ONNX file, or carries no plan, or one of a newer schema.
        MissingPackageError: The plan's runtime is not installed.
        UnsupportedFeatureError: The plan's runtime builds nothing, or is not known here.
        DeploymentError: The runtime does not compile it.
    """
    model = _read(Path(path))
    facts = metadata(model.metadata_props)
    if PLAN_KEY not in facts:
        raise PlanError(
            f"File {str(path)!r} carries no plan. Expected an ONNX file with the property "
            f"{PLAN_KEY!r}. Write one with `mpsearch search` or `mpsearch export`."
        )
    plan = plan_from_dict(json.loads(facts[PLAN_KEY]), origin=str(path))
    if plan.runtime not in _THAT_RUN:
        raise UnsupportedFeatureError(
            f"The plan in {str(path)!r} is for runtime {plan.runtime!r}. Expected one of "
            f"{', '.join(_THAT_RUN)}, which run such files. Search again for one of them."
        )
    runnable = Runnable(plan=plan, model=model, threads=1 if threads is None else threads)
    _warn_of_other_device(plan, threads=runnable.threads)
    for workload in plan.workloads:
        runnable._executable({n: tuple(s) for n, s in workload.shapes.items()})  # noqa: SLF001 - the same module
    return runnable


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise PlanError(
            f"File {str(path)!r} cannot be read as ONNX: {error}. Expected the file that "
            "`mpsearch search` or `mpsearch export` writes. Check the path."
        ) from error


def _warn_of_other_device(plan: Plan, *, threads: int) -> None:
    here = RUNTIMES[plan.runtime].device(threads).name
    if plan.provenance.device and plan.provenance.device != here:
        _LOG.warning(
            "The plan was made on %r, and this is %r: its predicted latency does not hold here.",
            *(plan.provenance.device, here),
        )
