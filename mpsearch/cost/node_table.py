"""The latency model that sees boundaries: time per layer signature, own and producer's format."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mpsearch.core.graph import LayerGraph

# Relative standard deviations that weigh what the fit sees against what it presumes.
_NODE_NOISE = 0.15  # counters of one node in one plan; they count whole microseconds
_PLAN_NOISE = 0.015  # a whole plan, timed in turns
_EDGE_PRIOR = 0.20  # what another producer's format changes, of the signature's time
_LAYER_PRIOR = 0.30  # what is different about a layer, of the mean time of a layer
_OFFSET_PRIOR = 0.05  # what calling the runtime takes, of a typical plan
_SLOPE_PRIOR = 0.10  # how far sums of counters are from whole times
_SMALLEST_SECONDS = 1e-6  # what counters resolve
_SWEEPS = 8  # of reweighting; the weights settle after four or five
_HUBER = 1.5  # residuals beyond so many robust standard deviations count less
_MAD_FACTOR = 1.4826  # median absolute deviation to standard deviation, for normal noise
NO_PRODUCER = -1


@final
@dataclass(frozen=True, kw_only=True)
class Observations:
    """N built plans: the choice of each of L layers, its own time, and the plan's whole time.

    `layer_seconds` sum to about `seconds` in each plan: glue is attributed to layers.
    `stderr` is that of `seconds`; None where they are exact.
    """

    choice: Int[ndarray, "N L"]
    layer_seconds: Float[ndarray, "N L"]
    seconds: Float[ndarray, " N"]
    stderr: Float[ndarray, " N"] | None = None

    @property
    def plan_noise(self) -> Float[ndarray, " N"]:
        """Return the standard deviation of whole times: of the model, and of timing."""
        timing = np.zeros_like(self.seconds) if self.stderr is None else self.stderr
        return np.asarray(np.hypot(_PLAN_NOISE * self.seconds, timing))

    def without(self, place: int) -> "Observations":
        """Return all plans but one."""
        return Observations(
            choice=np.delete(self.choice, place, axis=0),
            layer_seconds=np.delete(self.layer_seconds, place, axis=0),
            seconds=np.delete(self.seconds, place),
            stderr=None if self.stderr is None else np.delete(self.stderr, place),
        )


@final
@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """Seconds of a plan: offset + slope x (sum over layers + sum over edges).

    `layer[l, f]` is the time of layer l in format f, `edge[l, g, f]` what it takes more
    where its producer is in format g; zero for a layer without producer.
    """

    layer: Float[ndarray, "L F"]
    edge: Float[ndarray, "L F F"]
    producer: Int[ndarray, " L"]
    offset: float = 0.0
    slope: float = 1.0

    def seconds(self, choice: Int[ndarray, "N L"]) -> Float[ndarray, " N"]:
        """Return the predicted seconds of plans."""
        result: Float[ndarray, " N"] = self.offset + self.slope * self._sums(choice)
        return result

    def _sums(self, choice: Int[ndarray, "N L"]) -> Float[ndarray, " N"]:
        layers = np.arange(choice.shape[1])
        own = self.layer[layers, choice].sum(axis=1)
        fed = np.flatnonzero(self.producer != NO_PRODUCER)
        between = self.edge[fed, choice[:, self.producer[fed]], choice[:, fed]].sum(axis=1)
        result: Float[ndarray, " N"] = own + between
        return result


def nearest_producers(graph: LayerGraph) -> Int[ndarray, " L"]:
    """Return the layer that feeds each layer: of several the last executed; -1 for none.

    A residual stream makes every earlier layer a producer of every later one; what decides
    whether a tensor is converted is the one just before.
    """
    producers = np.full(len(graph.layers), NO_PRODUCER, dtype=np.int64)
    for producer, consumer in graph.edges:
        if producer < consumer:
            producers[consumer] = max(producers[consumer], producer)
    return producers


def fit_node_table(
    observed: Observations,
    *,
    signatures: Sequence[str],
    producers: Int[ndarray, " L"],
    formats: int,
) -> LatencyModel:
    """Fit layer times by signature and format, with what depends on the producer's format.

    The model is T(l) = u(signature, own format) + c(l) + e(signature, own, producer's
    format), and a plan takes the sum over its layers. Rows are the attributed time of each
    layer in each plan and the time of each whole plan, weighted by their noise; e and c
    are shrunk towards zero (ridge), so that a combination which no plan had is
    predicted by its signature and format alone. Fitted by iteratively reweighted least
    squares. Source: Huber (1964), Ann. Math. Stat. 35(1), 73-101; Hoerl and Kennard
    (1970), Technometrics 12(1), 55-67.

    Args:
        observed: Built plans; each format that a signature may have should occur in one.
        signatures: What makes two layers cost the same, one per layer.
        producers: The layer that feeds each layer, or -1.
        formats: Number of formats F.
    """
    design = _Design.of(signatures, producers=producers, formats=formats)
    rows = design.rows(observed.choice)
    plans = rows.reshape(*observed.choice.shape, -1).sum(axis=1)
    matrix = np.concatenate([rows, plans])
    target = np.concatenate([observed.layer_seconds.ravel(), observed.seconds])
    solution = _reweighted(
        matrix,
        target=target,
        sigma=_noise(observed),
        prior=design.prior(observed.layer_seconds),
        counters=len(rows),
    )
    return design.model(solution, seen=design.seen(rows))


def calibrated(model: LatencyModel, observed: Observations) -> LatencyModel:
    """Return the model with offset and slope fitted to the whole times of plans.

    Weighted by the plans' own times, and robust: a plan that was disturbed counts less. Where
    all plans take about the same time, the slope stays near one.
    """
    sums = LatencyModel(layer=model.layer, edge=model.edge, producer=model.producer).seconds(
        observed.choice
    )
    typical = float(np.median(observed.seconds))
    matrix = np.stack([np.full(len(sums), typical), sums], axis=1)
    solution = _reweighted(
        matrix,
        target=observed.seconds - sums,
        sigma=observed.plan_noise,
        prior=np.array([_OFFSET_PRIOR, _SLOPE_PRIOR]),
    )
    return LatencyModel(
        layer=model.layer,
        edge=model.edge,
        producer=model.producer,
        offset=float(solution[0]) * typical,
        slope=1.0 + float(solution[1]),
    )


def held_out_errors(
    observed: Observations,
    *,
    signatures: Sequence[str],
    producers: Int[ndarray, " L"],
    formats: int,
    held_out: Sequence[int],
) -> Float[ndarray, " H"]:
    """Return (predicted - measured) / measured of plans, each predicted from all others."""
    errors = []
    for place in held_out:
        rest = observed.without(place)
        model = calibrated(
            fit_node_table(rest, signatures=signatures, producers=producers, formats=formats), rest
        )
        predicted = float(model.seconds(observed.choice[place : place + 1])[0])
        errors.append(predicted / float(observed.seconds[place]) - 1)
    return np.array(errors, dtype=np.float64)


@final
@dataclass(frozen=True, kw_only=True)
class _Design:
    """Which unknown each layer and format refers to: u by group, then c by layer, then e."""

    group: Int[ndarray, " L"]
    producers: Int[ndarray, " L"]
    groups: int
    formats: int

    @staticmethod
    def of(signatures: Sequence[str], *, producers: Int[ndarray, " L"], formats: int) -> "_Design":
        known = {name: place for place, name in enumerate(dict.fromkeys(signatures))}
        group = np.array([known[name] for name in signatures], dtype=np.int64)
        return _Design(group=group, producers=producers, groups=len(known), formats=formats)

    @property
    def own_count(self) -> int:
        return self.groups * self.formats

    @property
    def count(self) -> int:
        return self.own_count * (1 + self.formats) + len(self.group)

    def rows(self, choice: Int[ndarray, "N L"]) -> Float[ndarray, "NL K"]:
        plans, layers = choice.shape
        matrix = np.zeros((plans, layers, self.count))
        plan, layer = np.arange(plans)[:, None], np.arange(layers)
        own = self.group * self.formats + choice
        matrix[plan, layer, own] = 1
        matrix[plan, layer, self.own_count + layer] = 1
        fed = np.flatnonzero(self.producers != NO_PRODUCER)
        pair = own[:, fed] * self.formats + choice[:, self.producers[fed]]
        matrix[plan, fed, self.own_count + layers + pair] = 1
        return matrix.reshape(plans * layers, self.count)

    def prior(self, layer_seconds: Float[ndarray, "N L"]) -> Float[ndarray, " K"]:
        """Return the standard deviation that each unknown is presumed to have around zero."""
        typical = np.median(layer_seconds, axis=0)
        by_group = np.array([typical[self.group == each].mean() for each in range(self.groups)])
        scale = max(float(typical.mean()), np.finfo(np.float64).tiny)
        own = np.full(self.own_count, np.inf)
        layer = np.full(len(self.group), _LAYER_PRIOR * scale)
        edge = np.repeat(_EDGE_PRIOR * np.maximum(by_group, 0.01 * scale), self.formats**2)
        return np.concatenate([own, layer, edge])

    def seen(self, rows: Float[ndarray, "NL K"]) -> Bool[ndarray, "G F"]:
        return rows[:, : self.own_count].any(axis=0).reshape(self.groups, self.formats)

    def model(self, solution: Float[ndarray, " K"], *, seen: Bool[ndarray, "G F"]) -> LatencyModel:
        own = solution[: self.own_count].reshape(self.groups, self.formats)
        own = np.where(seen, own, own.max(axis=1, keepdims=True))
        per_layer = solution[self.own_count : self.own_count + len(self.group)]
        pair = solution[self.own_count + len(self.group) :]
        # Stored by own then producer's format; edges are read by producer's then own.
        pairs: Float[ndarray, "G F F"] = pair.reshape(self.groups, self.formats, self.formats)
        edge = np.einsum("lab->lba", pairs[self.group])
        return LatencyModel(
            layer=own[self.group] + per_layer[:, None],
            edge=np.where((self.producers != NO_PRODUCER)[:, None, None], edge, 0.0),
            producer=self.producers,
        )


def _noise(observed: Observations) -> Float[ndarray, " M"]:
    """Return the standard deviation of each row: all layers' times, then the plans'."""
    # The typical time of a layer over plans stands in where one count is zero or an outlier.
    typical = np.median(observed.layer_seconds, axis=0)
    size = np.maximum(observed.layer_seconds, np.maximum(typical, _SMALLEST_SECONDS) / 2)
    return np.concatenate([_NODE_NOISE * size.ravel(), observed.plan_noise])


def _reweighted(
    matrix: Float[ndarray, "M K"],
    *,
    target: Float[ndarray, " M"],
    sigma: Float[ndarray, " M"],
    prior: Float[ndarray, " K"],
    counters: int = 0,
) -> Float[ndarray, " K"]:
    """Minimise the sum of Huber((target - matrix x) / (s sigma)) and of (x / prior)**2.

    The scale s is one, but for the first rows, those of counters: theirs is their robust
    spread, as on a busy machine they are worse than presumed against whole times.
    """
    # What no row mentions stays zero; most pairs of formats never meet.
    seen = matrix.any(axis=0)
    rows = matrix[:, seen] / sigma[:, None]
    scaled = target / sigma
    # Without a prior an unknown is held by a minute one, so that the system has one solution.
    widest = 1e3 * max(float(np.abs(target).max()), _SMALLEST_SECONDS)
    stiffness = np.diag(np.where(np.isfinite(prior), prior, widest)[seen] ** -2.0)
    weight = np.ones_like(target)
    found = np.zeros(rows.shape[1])
    for _ in range(_SWEEPS):
        weighted = rows * weight[:, None]
        found = np.linalg.solve(weighted.T @ rows + stiffness, weighted.T @ scaled)
        residual = np.abs(scaled - rows @ found)
        scale = np.ones_like(residual)
        if counters:
            scale[:counters] = max(_MAD_FACTOR * float(np.median(residual[:counters])), 1.0)
        others = max(_MAD_FACTOR * float(np.median(residual[counters:])), 1.0)
        limit = np.where(np.arange(len(residual)) < counters, 1.0, others) * _HUBER
        weight = np.minimum(1.0, limit * scale / np.maximum(residual, 1e-12)) / scale**2
    solution = np.zeros(matrix.shape[1])
    solution[seen] = found
    return solution
