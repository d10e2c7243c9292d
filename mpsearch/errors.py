"""Every error that mpsearch raises on purpose.

A message states the fact with its values, what was expected, and the next step. The class
says who has to act, and `exit_code` is what the command line ends with.
"""

from collections.abc import Mapping
from typing import ClassVar


class MpsearchError(Exception):
    """Base of every error raised on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(MpsearchError):
    """The request cannot be right: the user changes it and tries again."""

    exit_code = 2


class ModelError(UsageError):
    """The model cannot be read, exported or quantised."""


class DataError(UsageError):
    """Calibration, validation or test data do not fit the model or the task."""


class BudgetError(UsageError):
    """A budget is unknown, negative or has no unit."""


class FormatError(UsageError):
    """A format is unknown, or a layer cannot take it."""


class UnknownLayerError(UsageError):
    """A name or pattern matches no layer of the model."""


class PlanError(UsageError):
    """A plan cannot be read, is of a newer schema, or belongs to another model."""


class ProblemError(UsageError):
    """An optimisation problem is malformed."""


class UnsupportedFeatureError(UsageError):
    """The chosen solver or runtime lacks a feature that the request needs."""


class MissingPackageError(UsageError):
    """An optional package is not installed."""


class AbsentError(UsageError):
    """What the request names is not there, or lies where the request may not look."""


class ConflictError(UsageError):
    """What the request asks for does not fit the state that the thing is in."""


class QuotaError(UsageError):
    """A tenant has as much as it may have, or asks more often than it may."""


class ServiceError(MpsearchError):
    """A service cannot be reached, or refused; `status` is its answer's, `kind` its problem's."""

    def __init__(self, message: str, *, status: int | None = None, kind: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class StorageError(MpsearchError):
    """The store of a service's uploads cannot be reached, or refuses."""


class InfeasibleBudgetError(MpsearchError):
    """No plan keeps the budgets; `smallest` holds each budget's smallest reachable value."""

    exit_code = 3

    def __init__(self, message: str, *, smallest: Mapping[str, float]) -> None:
        super().__init__(message)
        self.smallest = dict(smallest)


class BoundNotHeldError(MpsearchError):
    """No plan is certified to hold a bound on what is lost.

    `drop` was measured of the safest plan on so many `samples`; it is at most `upper` with
    95 % confidence. `needed` samples could certify the bound, None where none could.
    """

    exit_code = 3

    def __init__(
        self, message: str, *, drop: float, upper: float, samples: int, needed: int | None
    ) -> None:
        super().__init__(message)
        self.drop = drop
        self.upper = upper
        self.samples = samples
        self.needed = needed


class MeasurementError(MpsearchError):
    """A measured number is not finite, or the machine cannot give the precision asked for."""


class DeploymentError(MpsearchError):
    """A plan does not compile, runs other kernels than planned, or gives other numbers."""


class SolverError(MpsearchError):
    """A solver crashed, or its answer contradicts our own check of it."""
