"""What every runtime is: what it can run, and how a model file becomes an executable."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, Final, final

import numpy as np
import onnx
from numpy import ndarray

from mpsearch.core.cache import Cache, content_hash
from mpsearch.core.formats import format_named
from mpsearch.core.graph import Layer, Op
from mpsearch.core.hardware import Device, Support, Workload
from mpsearch.core.machine import this_processor
from mpsearch.core.plan import Plan
from mpsearch.errors import DataError, UnsupportedFeatureError, UsageError

_CACHED: Final = "support"


@final
@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What really ran a layer: the runtime's type and name of the kernel, and its precision.

    `precision` is what the runtime says it works on: `f32` or `bf16` for plain numbers, `u8`
    for quantised inputs, `i8` or `i4` where small weights meet plain inputs. `weight` is what
    the weight is kept as in memory.
    """

    type: str
    name: str
    precision: str
    weight: str

    @classmethod
    def folded(cls) -> "Kernel":
        """Return what stands for a layer that was computed once and for all while building."""
        return cls(type="constant", name="constant", precision="", weight="")


@final
@dataclass(frozen=True, kw_only=True)
class NodeTime:
    """Mean seconds of one executed node per inference, and the layers fused into it.

    `signature` tells what makes two nodes cost the same: type, kernel, precisions, shapes.
    """

    name: str
    type: str
    kernel: str
    layers: tuple[str, ...]
    seconds: float
    signature: str


class AbstractExecutable(ABC):
    """A model that was built for one device and is ready to run.

    Not safe for several threads at once: it holds its inputs and outputs.
    """

    @final
    def run(self, inputs: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """Run once on `inputs`, keep them bound, and return copies of the outputs.

        Raises:
            DataError: An input is missing, unknown, or of a shape it was not built for.
        """
        expected = set(self.input_names)
        if set(inputs) != expected:
            raise DataError(
                f"The inputs are {sorted(inputs)}. Expected {sorted(expected)}. "
                "Pass each of them by name."
            )
        return self._run({name: np.ascontiguousarray(array) for name, array in inputs.items()})

    @property
    @abstractmethod
    def input_names(self) -> tuple[str, ...]:
        """Return the names of the inputs, in the file's order."""

    @abstractmethod
    def infer(self) -> None:
        """Run once more on the inputs of the last `run`, for timing: no copies, no checks."""

    @abstractmethod
    def kernels(self) -> dict[str, Kernel]:
        """Return {layer: the kernel that runs it}; a layer that was folded away is absent."""

    @abstractmethod
    def node_times(self) -> list[NodeTime]:
        """Return each executed node's mean time over all inferences, in order of execution.

        Raises:
            UsageError: It was built without `profile=True`, or was never run.
        """

    def own_peak_bytes(self) -> int | None:
        """Return the most bytes that a first inference held, as the runtime counts them itself.

        None where it keeps no such statistic; the process' own growth then tells.
        """
        return None

    @abstractmethod
    def assert_kernels(self, plan: Plan) -> None:
        """Check that each layer of the plan runs in its format.

        Raises:
            DeploymentError: The first layer that does not; the kernel expected and found.
        """

    @abstractmethod
    def _run(self, inputs: Mapping[str, ndarray]) -> dict[str, ndarray]: ...


class AbstractRuntime(ABC):
    """A program that runs model files on this device."""

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]
    product_formats: ClassVar[tuple[str, ...]] = ()
    """Of products of two activations, which take no others."""
    revision: ClassVar[int]
    """Raised when the same request would give another answer; part of cache keys."""

    @property
    @abstractmethod
    def bases(self) -> tuple[str, ...]:
        """Return the base precisions that this processor computes in."""

    @abstractmethod
    def device(self, threads: int) -> Device:
        """Return the device that this runtime uses here, with versions of its software."""

    @final
    def settings(self, base: str) -> dict[str, str]:
        """Return the settings that make everything outside quantised layers run in `base`.

        Raises:
            UnsupportedFeatureError: The base is not among `bases`.
        """
        self._check_base(base)
        return self._settings(base)

    def adapted(
        self,
        settings: Mapping[str, str],
        *,
        model: onnx.ModelProto,  # noqa: ARG002 - for runtimes whose settings depend on it
        threads: int,  # noqa: ARG002 - the same
        workload: Workload | None,  # noqa: ARG002 - the same
    ) -> dict[str, str]:
        """Return settings that a model needs for its layers to be told apart, found by building.

        They travel with a plan, so that the file runs elsewhere as it was measured here.
        """
        return dict(settings)

    def suspects(self, settings: Mapping[str, str]) -> tuple[tuple[str, str], ...]:  # noqa: ARG002 - for runtimes that have some
        """Return other values of single settings, to find which one makes a plan fail.

        The likeliest first; values that are set already are left out.
        """
        return ()

    @final
    def support(
        self, layer: Layer, format_name: str, *, base: str, cache: Cache | None = None
    ) -> Support:
        """Return how this runtime treats the layer in the format, found on this device.

        Found once per operator and shapes, device and version, where there is a cache.

        Raises:
            FormatError: The format is unknown.
            UnsupportedFeatureError: The base is not among `bases`.
        """
        format_ = format_named(format_name)
        self._check_base(base)
        if format_.is_floating:  # a layer cannot leave the base of its plan
            return Support.NATIVE if format_name == base else Support.NONE
        # Clipping moves scales, and kernels do not care which.
        layout = format_.layout
        is_product = layer.op is Op.PRODUCT
        if not (layout in self.product_formats if is_product else self._offers(layout)):
            return Support.NONE
        key = content_hash(asdict(self.device(1)), self.revision, layer.signature, layout, base)
        known = None if cache is None else cache.get(_CACHED, key)
        if known is not None:
            return Support(known["support"])
        found = self._support(layer, layout, base=base)
        if cache is not None:
            cache.put(_CACHED, key, value={"support": found.value})
        return found

    @final
    def build(
        self,
        model: onnx.ModelProto,
        *,
        settings: Mapping[str, str],
        threads: int = 1,
        workload: Workload | None = None,
        profile: bool = False,
    ) -> AbstractExecutable:
        """Compile a file: static shapes for a workload, dynamic ones without.

        Args:
            model: A base file or an exported plan.
            settings: From `settings(base)`, or those a plan carries.
            threads: Threads of one inference, at most the cores there are.
            workload: The shape of each input; None to accept any.
            profile: Whether `node_times` will be asked for; costs a little time.

        Raises:
            UsageError: There are not so many cores, or a workload's inputs are not the model's.
            DeploymentError: It does not compile; the runtime's reason and the settings.
        """
        cores = this_processor().cores
        if not 1 <= threads <= cores:
            raise UsageError(
                f"{threads} threads were asked for. Expected 1 to {cores}, the cores that this "
                "process may use. Pass how many threads one inference may use."
            )
        if workload is not None:
            _check_workload(model, workload)
        return self._build(
            model, settings=settings, threads=threads, workload=workload, profile=profile
        )

    def _check_base(self, base: str) -> None:
        if base not in self.bases:
            raise UnsupportedFeatureError(
                f"Runtime {self.name!r} has no base {base!r} on {self.device(1).name!r}. Expected "
                f"one of {', '.join(self.bases)}. Choose one of them, or another runtime."
            )

    @abstractmethod
    def _settings(self, base: str) -> dict[str, str]: ...

    def _offers(self, layout: str) -> bool:
        return layout in self.formats

    @abstractmethod
    def _support(self, layer: Layer, format_name: str, *, base: str) -> Support: ...

    @abstractmethod
    def _build(
        self,
        model: onnx.ModelProto,
        *,
        settings: Mapping[str, str],
        threads: int,
        workload: Workload | None,
        profile: bool,
    ) -> AbstractExecutable: ...


def _check_workload(model: onnx.ModelProto, workload: Workload) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    names = {value.name for value in model.graph.input} - constants
    if set(workload.shapes) != names:
        raise UsageError(
            f"Workload {workload.name!r} gives shapes for {sorted(workload.shapes)}. Expected "
            f"{sorted(names)}, the model's inputs. Name a shape for each."
        )
