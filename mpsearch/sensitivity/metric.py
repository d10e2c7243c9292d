"""The contract of a metric: how much one layer in one format hurts, all others kept."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, final

from mpsearch.core.cache import Cache
from mpsearch.core.formats import Format, format_named
from mpsearch.core.graph import Op
from mpsearch.core.machine import installed_versions
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.progress import Progress
from mpsearch.core.provenance import Provenance
from mpsearch.core.tables import SensitivityTable
from mpsearch.errors import FormatError, MeasurementError
from mpsearch.execution import takes
from mpsearch.sensitivity.reach import without_unreached
from mpsearch.sensitivity.request import Measurement, Request, Work
from mpsearch.tasks import AbstractTask, Dataset
from mpsearch.tracing import TracedModel

_LOG = logging.getLogger("mpsearch.sensitivity")
_PACKAGES: Final = ("mpsearch", "torch", "numpy")
REFERENCE: Final = "fp32"


@dataclass(frozen=True, kw_only=True)
class AbstractMetric(ABC):
    """A way to score one layer in one format; lower is better, summable over layers.

    A subclass fills `_measure`; the base checks what goes in and certifies what comes out.
    Raise `revision` when the same input would give another number: it is in every cache key.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    revision: ClassVar[int]
    measures_products: ClassVar[bool] = False
    """Whether it runs formats themselves, and so knows what they do to layers without a weight."""

    @final
    def measure(
        self,
        traced: TracedModel,
        *,
        task: AbstractTask,
        data: Dataset,
        formats: Sequence[str],
        offered: Mapping[str, Sequence[str]] | None = None,
        quantizers: Mapping[str, ActivationQuantizer] | None = None,
        dynamic_group: int | None = None,
        cache: Cache | None = None,
        progress: Progress | None = None,
        report: Callable[[Work], None] | None = None,
        seed: int = 0,
        memory_limit_bytes: int | None = None,
    ) -> SensitivityTable:
        """Score every layer in every format against the fp32 reference.

        A layer that cannot change the task's output on this data has no score but the
        reference's: a warning names it, and a solver leaves it at its base. The same holds of
        products of two activations where the metric goes by weights or gradients of them.

        Args:
            traced: The model.
            task: What counts as output.
            data: Calibration data.
            formats: Columns of the table; fp32 scores 0 and costs nothing.
            offered: The formats of each layer; None means all that it can take. Others are NaN.
            quantizers: Of the layers' inputs, where a format has static activations.
            dynamic_group: `execution.dynamic_group_of` the runtime that is deployed on.
            cache: Where every value is kept as soon as it is measured; None keeps nothing.
            progress: Told after each step, with the time left.
            report: Given the work that was done.
            seed: Of random draws; the same seed gives the same table.
            memory_limit_bytes: How much of the activations is held at once; what goes beyond
                is computed in smaller parts or kept on disk. None means no bound.

        Raises:
            FormatError: A format is unknown, named twice, or offered to a layer that cannot
                take it.
            MeasurementError: An activation or a score is not finite, a quantiser is missing,
                or no layer changes the output.
            DataError: Labels do not fit, or the data changes between passes.
        """
        numbers = _formats(formats)
        request = Request(
            traced=traced,
            task=task,
            data=data,
            formats=numbers,
            pairs=self._pairs(traced, numbers, offered=offered),
            quantizers=quantizers or {},
            dynamic_group=dynamic_group,
            cache=cache,
            progress=progress,
            seed=seed,
            memory_limit_bytes=memory_limit_bytes,
        )
        found = self._certified(self._run(request), request)
        _LOG.info(
            "%s: %d pairs measured at %.0f %% of whole passes, %d from the cache.",
            self.name,
            found.work.measured_pairs,
            100 * found.work.share,
            found.work.cached_pairs,
        )
        if report is not None:
            report(found.work)
        return SensitivityTable(
            layers=traced.graph.names,
            formats=tuple(numbers),
            loss=found.loss,
            stderr=found.stderr,
            metric=self.name,
            unit=self.unit,
            samples=found.samples,
            numbers=found.numbers,
            quantizers=dict(request.quantizers),
            # No clock: the same measurement gives the same table, bit for bit.
            provenance=Provenance(
                model=traced.graph.fingerprint,
                data=data.fingerprint,
                seed=seed,
                versions=installed_versions(_PACKAGES),
            ),
        )

    def _pairs(
        self,
        traced: TracedModel,
        formats: Mapping[str, Format],
        *,
        offered: Mapping[str, Sequence[str]] | None,
    ) -> dict[str, tuple[str, ...]]:
        pairs = _pairs(traced, formats, offered=offered)
        products = {layer.name for layer in traced.graph.layers if layer.op is Op.PRODUCT}
        left_out = [layer for layer in pairs if layer in products and pairs[layer]]
        if self.measures_products or not left_out:
            return pairs
        _LOG.warning(
            "Metric %s goes by weights, which products of two activations lack: %d of them, such "
            "as %s, have no scores and stay in the base. Metric output_error measures them.",
            *(self.name, len(left_out), left_out[0]),
        )
        return {layer: () if layer in products else names for layer, names in pairs.items()}

    def _run(self, request: Request) -> Measurement:
        try:
            return without_unreached(self._measure(request), request)
        except KeyboardInterrupt:
            if request.cache is not None:
                _LOG.warning(
                    "Interrupted; what was measured lies in %s. Run the same again to go on.",
                    request.cache.folder,
                )
            raise

    @abstractmethod
    def _measure(self, request: Request) -> Measurement: ...

    def _certified(self, found: Measurement, request: Request) -> Measurement:
        """Return the measurement with the reference's zeros.

        Raises:
            MeasurementError: A score that was asked for is not finite.
        """
        loss, stderr = found.loss.copy(), found.stderr.copy()
        if found.numbers is not None and REFERENCE in request.formats:
            found.numbers[:, :, list(request.formats).index(REFERENCE)] = 0.0
        for row, layer in enumerate(request.traced.graph.names):
            for column, name in enumerate(request.formats):
                if name == REFERENCE:
                    loss[row, column] = stderr[row, column] = 0.0
                elif (
                    name in request.pairs[layer]
                    and layer not in found.unreached
                    and not math.isfinite(loss[row, column])
                ):
                    raise MeasurementError(
                        f"Metric {self.name!r} scores layer {layer!r} in {name!r} with "
                        f"{loss[row, column]}. Expected a finite number. Leave this format out "
                        "for the layer, or check the data."
                    )
        return replace(found, loss=loss, stderr=stderr)


def _formats(names: Sequence[str]) -> dict[str, Format]:
    if not names or len(set(names)) < len(names):
        raise FormatError(
            f"The formats {list(names)} are empty or name one twice. Expected different formats, "
            "at least one. Correct the list."
        )
    return {name: format_named(name) for name in names}


def _pairs(
    traced: TracedModel,
    formats: Mapping[str, Format],
    *,
    offered: Mapping[str, Sequence[str]] | None,
) -> dict[str, tuple[str, ...]]:
    pairs: dict[str, tuple[str, ...]] = {}
    for layer in traced.graph.layers:
        possible = [name for name, number in formats.items() if takes(layer, number)]
        wanted = possible if offered is None else offered.get(layer.name, ())
        refused = [name for name in wanted if name in formats and name not in possible]
        if refused:
            raise FormatError(
                f"Layer {layer.name!r} ({layer.op}, weight {layer.weight_shape}) is offered "
                f"{refused[0]!r}, which it cannot take. Expected one of {possible}. Leave it out."
            )
        pairs[layer.name] = tuple(name for name in possible if name in wanted and name != REFERENCE)
    return pairs
