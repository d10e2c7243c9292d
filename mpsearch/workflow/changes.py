"""The exact pass of a search: losses of single layers, and the changes of output behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from mpsearch.core.machine import installed_versions
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.progress import Progress
from mpsearch.core.provenance import Provenance
from mpsearch.core.tables import SensitivityTable
from mpsearch.errors import UsageError
from mpsearch.search.references import pattern_of
from mpsearch.sensitivity import METRICS
from mpsearch.sensitivity.apart import measure_apart
from mpsearch.sensitivity.change_request import ChangeRequest
from mpsearch.sensitivity.divergence import divergence_unit
from mpsearch.sensitivity.metric import AbstractMetric
from mpsearch.sensitivity.output_changes import OutputChanges, measure_changes
from mpsearch.workflow.prepare import Prepared

EXACT: Final = "output_error"
_PACKAGES: Final = ("mpsearch", "torch", "numpy")


@final
@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which formats each layer is tried in, what they need, and whether pairs are taken apart."""

    formats: tuple[str, ...]
    offered: Mapping[str, Sequence[str]]
    quantizers: Mapping[str, ActivationQuantizer] = field(default_factory=dict)
    dynamic_group: int | None = None
    is_apart: bool = False

    def request(self, prepared: Prepared) -> ChangeRequest:
        """Return the request for every pair over the calibration data."""
        task, traced, data = prepared.task, prepared.traced, prepared.calibration
        return ChangeRequest(
            traced=traced,
            task=task,
            data=data,
            pairs=self.offered,
            quantizers=self.quantizers,
            dynamic_group=self.dynamic_group,
        )

    def table(
        self,
        metric: str | AbstractMetric,
        *,
        prepared: Prepared,
        seed: int,
        progress: Progress | None = None,
    ) -> SensitivityTable:
        """Return what a metric makes of the same pairs.

        Raises:
            UsageError: There is no metric of this name.
        """
        chosen = metric_named(metric) if isinstance(metric, str) else metric

        def measured(
            formats: Sequence[str], offered: Mapping[str, Sequence[str]]
        ) -> SensitivityTable:
            return chosen.measure(
                prepared.traced,
                task=prepared.task,
                data=prepared.calibration,
                formats=formats,
                offered=offered,
                quantizers=self.quantizers,
                dynamic_group=self.dynamic_group,
                cache=prepared.cache,
                progress=progress,
                seed=seed,
            )

        if self.is_apart:
            return measure_apart(measured, formats=self.formats, offered=self.offered)
        return measured(self.formats, self.offered)


def metric_named(name: str) -> AbstractMetric:
    """Return the metric called `name`.

    Raises:
        UsageError: There is none of this name.
    """
    if name not in METRICS:
        raise UsageError(
            f"Metric {name!r} is unknown. Expected one of {', '.join(METRICS)}. Choose one of them."
        )
    return METRICS[name]


def unless_fixed(
    offered: Mapping[str, Sequence[str]], *, fixed: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return the formats of each layer; of one that a pattern pins, that format alone.

    The last pattern that matches a layer counts.
    """
    pinned = {layer: pattern_of(layer, fixed=fixed) for layer in offered}
    return {
        layer: tuple(name for name in names if pinned[layer] in {None, name})
        for layer, names in offered.items()
    }


def exact_changes(
    prepared: Prepared, scope: Scope, *, progress: Progress | None = None
) -> OutputChanges:
    """Measure every pair exactly and keep the changes of the output."""
    return measure_changes(scope.request(prepared), cache=prepared.cache, progress=progress)


def exact_table(changes: OutputChanges, *, scope: Scope, seed: int) -> SensitivityTable:
    """Return the squared output errors, as metric `output_error` measures them."""
    return _table(changes, changes.squared, scope=scope, metric=EXACT, seed=seed)


def divergence_table(changes: OutputChanges, *, scope: Scope, seed: int) -> SensitivityTable:
    """Return the divergences of single layers."""
    return _table(changes, changes.divergence, scope=scope, metric="divergence", seed=seed)


def _table(
    changes: OutputChanges,
    losses: Float64[ndarray, "S L F"],
    *,
    scope: Scope,
    metric: str,
    seed: int,
) -> SensitivityTable:
    request, samples = changes.request, len(losses)
    columns = [changes.formats.index(n) if n in changes.formats else None for n in scope.formats]
    shape = (samples, len(changes.layers), len(columns))
    ordered = np.full(shape, np.nan)
    for place, column in enumerate(columns):
        if column is not None:
            ordered[:, :, place] = losses[:, :, column]
    with np.errstate(invalid="ignore"):
        one = np.full(shape[1:], np.nan)
        spread = ordered.std(axis=0, ddof=1) if samples > 1 else one
    is_exact = metric == EXACT
    return SensitivityTable(
        layers=changes.layers,
        formats=scope.formats,
        loss=ordered.mean(axis=0),
        stderr=spread / np.sqrt(samples),
        metric=metric,
        unit=METRICS[EXACT].unit if is_exact else divergence_unit(request.task),
        samples=samples,
        quantizers=dict(request.quantizers),
        provenance=Provenance(
            model=request.traced.graph.fingerprint,
            data=request.data.fingerprint,
            seed=seed,
            versions=installed_versions(_PACKAGES),
        ),
    )
