"""The optimisation problem: one choice per block, least loss, within every limit."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mpsearch.errors import ProblemError

# Sums up to here are exact in the floating arithmetic that every back end uses.
EXACT_LIMIT = 2**53

_WORDS: dict[type, str] = {
    np.floating: "floating numbers",
    np.integer: "whole numbers",
    np.bool_: "booleans",
}


@final
@dataclass(frozen=True, kw_only=True)
class Problem:
    """Choose one of F formats for each of D blocks: least summed loss within R limits.

    `loss` (D, F) is finite where allowed. `cost` (R, D, F) holds whole numbers >= 0. A choice
    spends `constant + costs + edge costs + shared costs`, summed up, and must stay within `limit`.
    `edges` (E, 2) are (producer, consumer) blocks with `edge_cost` (R, E, F, F), indexed by
    the producer's and the consumer's choice. `share_cost` (R, G) is paid once per group if any
    of its `sharers` is chosen, rows (group, block, format): consumers that share one quantiser
    share its cost. Each row of `cuts` (C, D) is a complete choice that is forbidden. `names`
    label the R budgets in messages.

    Raises:
        ProblemError: Shapes disagree, a number is not finite, negative or not whole, a block
            has no allowed format, or sums reach beyond 2**53.

    Example:
        >>> problem = Problem(
        ...     loss=np.array([[0.0, 1.0], [0.0, 3.0]]),
        ...     cost=np.array([[[4, 1], [4, 1]]]),
        ...     limit=np.array([5]),
        ... )
        >>> problem.spend(np.array([1, 0])).tolist()
        [5]
    """

    loss: Float[ndarray, "D F"]
    cost: Int[ndarray, "R D F"]
    limit: Int[ndarray, " R"]
    constant: Int[ndarray, " R"] | None = None
    allowed: Bool[ndarray, "D F"] | None = None
    edges: Int[ndarray, "E 2"] | None = None
    edge_cost: Int[ndarray, "R E F F"] | None = None
    sharers: Int[ndarray, "M 3"] | None = None
    share_cost: Int[ndarray, "R G"] | None = None
    cuts: Int[ndarray, "C D"] | None = None
    names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        _check_types(self)
        _check_shapes(self)
        _check_numbers(self)

    @cached_property
    def mask(self) -> Bool[ndarray, "D F"]:
        """Return where a choice is allowed."""
        if self.allowed is None:
            return np.ones(self.loss.shape, dtype=bool)
        return np.asarray(self.allowed)

    @cached_property
    def offset(self) -> Int[ndarray, " R"]:
        """Return what is spent whatever is chosen."""
        if self.constant is None:
            return np.zeros(len(self.limit), dtype=np.int64)
        return np.asarray(self.constant)

    def spend(self, choice: Int[ndarray, " D"]) -> Int[ndarray, " R"]:
        """Return what a choice spends of each budget, exactly."""
        rows = np.arange(len(choice))
        total: Int[ndarray, " R"] = self.offset + self.cost[:, rows, choice].sum(axis=1)
        if self.edges is not None and self.edge_cost is not None:
            producer, consumer = self.edges.T
            each = self.edge_cost[:, np.arange(len(self.edges)), choice[producer], choice[consumer]]
            total = total + each.sum(axis=1)
        if self.sharers is not None and self.share_cost is not None:
            group, block, format_ = self.sharers.T
            used = np.unique(group[choice[block] == format_])
            total = total + self.share_cost[:, used].sum(axis=1)
        return total

    def value(self, choice: Int[ndarray, " D"]) -> float:
        """Return the summed loss of a choice."""
        return float(self.loss[np.arange(len(choice)), choice].sum())

    def fits(self, choice: Int[ndarray, " D"]) -> bool:
        """Return whether a choice is allowed, within every limit, and not cut off."""
        if not bool(self.mask[np.arange(len(choice)), choice].all()):
            return False
        if self.cuts is not None and bool((self.cuts == choice).all(axis=1).any()):
            return False
        return bool((self.spend(choice) <= self.limit).all())


def _check_types(problem: Problem) -> None:
    kinds = {
        "loss": np.floating,
        "allowed": np.bool_,
        **dict.fromkeys(("cost", "limit", "constant", "edges", "edge_cost"), np.integer),
        **dict.fromkeys(("sharers", "share_cost", "cuts"), np.integer),
    }
    for name, kind in kinds.items():
        value: object = getattr(problem, name)
        if value is None and name not in {"loss", "cost", "limit"}:
            continue
        if not (isinstance(value, ndarray) and np.issubdtype(value.dtype, kind)):
            found = value.dtype if isinstance(value, ndarray) else type(value).__name__
            raise ProblemError(
                f"Problem.{name} is of type {found}. Expected a NumPy array of {_WORDS[kind]}. "
                "Convert it; a cost that is no whole number needs a finer unit first."
            )


def _check_shapes(problem: Problem) -> None:
    if problem.loss.ndim != len(("block", "format")) or problem.loss.size == 0:
        raise ProblemError(
            f"Problem.loss has shape {problem.loss.shape}. Expected (blocks, formats), at least "
            "one of each. Pass one row per block."
        )
    blocks, formats = problem.loss.shape
    budgets = problem.limit.size
    edges = 0 if problem.edges is None else len(np.atleast_1d(problem.edges))
    expected = {
        "cost": (budgets, blocks, formats),
        "constant": (budgets,),
        "allowed": (blocks, formats),
        "edges": (edges, 2),
        "edge_cost": (budgets, edges, formats, formats),
        "sharers": (0 if problem.sharers is None else len(np.atleast_1d(problem.sharers)), 3),
        "share_cost": (budgets, 0 if problem.share_cost is None else problem.share_cost.shape[-1]),
        "cuts": (0 if problem.cuts is None else len(np.atleast_1d(problem.cuts)), blocks),
        "limit": (budgets,),
    }
    for name, shape in expected.items():
        array = getattr(problem, name)
        if array is not None and array.shape != shape:
            raise ProblemError(
                f"Problem.{name} has shape {array.shape}. Expected {shape} for {blocks} blocks, "
                f"{formats} formats and {budgets} budgets. Pass arrays of matching shapes."
            )
    if (problem.edges is None) != (problem.edge_cost is None):
        raise ProblemError(
            "Problem has only one of edges and edge_cost. Expected both or neither. "
            "Pass an edge_cost of shape (budgets, edges, formats, formats)."
        )
    if problem.edges is not None and not _are_blocks(problem.edges, blocks=blocks):
        raise ProblemError(
            f"Problem.edges names blocks {problem.edges.min()} to {problem.edges.max()}. "
            f"Expected 0 to {blocks - 1}. Pass pairs (producer, consumer) of rows of `loss`."
        )
    _check_sharers(problem)
    if problem.names and len(problem.names) != budgets:
        raise ProblemError(
            f"Problem.names has {len(problem.names)} names for {budgets} budgets. "
            "Expected one each. Pass one name per budget, or none."
        )


def _check_sharers(problem: Problem) -> None:
    if problem.sharers is None and problem.share_cost is None:
        return
    groups = 0 if problem.share_cost is None else problem.share_cost.shape[1]
    size = np.array([groups, *problem.loss.shape])
    rows = problem.sharers
    if rows is None or not bool(((rows >= 0) & (rows < size)).all()):
        raise ProblemError(
            f"Problem.sharers names a group, block or format outside {size.tolist()}, or only one "
            "of sharers and share_cost is given. Expected rows (group, block, format), and a "
            "share_cost of shape (budgets, groups). Pass both."
        )


def _are_blocks(edges: Int[ndarray, "E 2"], *, blocks: int) -> bool:
    return bool(((edges >= 0) & (edges < blocks)).all())


def _check_numbers(problem: Problem) -> None:
    mask = problem.mask
    if not bool(mask.any(axis=1).all()):
        block = int(np.flatnonzero(~mask.any(axis=1))[0])
        raise ProblemError(
            f"Block {block} has no allowed format. Expected at least one. "
            "Allow one, or drop the block from the problem."
        )
    if not bool(np.isfinite(problem.loss[mask]).all()):
        raise ProblemError(
            "Problem.loss holds NaN or infinity at an allowed choice. Expected finite numbers. "
            "Forbid the choice with `allowed`, or measure it again."
        )
    total = float(np.abs(problem.offset).max(initial=0))
    shared = None if problem.share_cost is None else problem.share_cost[:, :, None]
    for name, array in (
        ("cost", problem.cost),
        ("edge_cost", problem.edge_cost),
        ("share_cost", shared),
    ):
        if array is None or array.size == 0:
            continue
        if int(array.min()) < 0:
            raise ProblemError(
                f"Problem.{name} holds {int(array.min())}. Expected whole numbers >= 0. "
                "Shift each block by its minimum and keep the shift in `constant`."
            )
        # A float sum cannot wrap around, and its rounding is far below the factor at stake.
        total += float(array.astype(float).max(axis=tuple(range(2, array.ndim))).sum(axis=1).max())
    if total >= EXACT_LIMIT:
        raise ProblemError(
            f"Costs can sum to {total:.3g}, beyond 2**53, where sums stop being exact. "
            "Expected less. Use a coarser unit."
        )
