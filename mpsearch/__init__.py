"""Find the best number format for each layer of a model under budgets, and prove the plan.

The names below load what they need on first use: importing mpsearch loads no torch.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpsearch.core.files import load_plan, save_plan
    from mpsearch.core.plan import Plan
    from mpsearch.runtimes import load
    from mpsearch.workflow.apply import apply
    from mpsearch.workflow.compare import compare_metrics
    from mpsearch.workflow.measure import measure
    from mpsearch.workflow.search import search
    from mpsearch.workflow.solve import frontier, solve_tables
    from mpsearch.workflow.verify import verify

__version__ = "0.1.0"

_HOMES = {
    "Plan": "mpsearch.core.plan",
    "apply": "mpsearch.workflow.apply",
    "compare_metrics": "mpsearch.workflow.compare",
    "frontier": "mpsearch.workflow.solve",
    "load": "mpsearch.runtimes",
    "load_plan": "mpsearch.core.files",
    "measure": "mpsearch.workflow.measure",
    "save_plan": "mpsearch.core.files",
    "search": "mpsearch.workflow.search",
    "solve_tables": "mpsearch.workflow.solve",
    "verify": "mpsearch.workflow.verify",
}

__all__ = [
    "Plan",
    "apply",
    "compare_metrics",
    "frontier",
    "load",
    "load_plan",
    "measure",
    "save_plan",
    "search",
    "solve_tables",
    "verify",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # a module hands out whatever it holds
    if name not in _HOMES:
        raise AttributeError(f"module 'mpsearch' has no attribute {name!r}")
    from mpsearch.errors import MissingPackageError

    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("mpsearch"):
            raise
        raise MissingPackageError(
            f"mpsearch.{name} needs the package {error.name!r}, which is not installed. "
            "Expected the extra 'search'. Run: pip install 'mpsearch[search]'."
        ) from error


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))


class _Package(ModuleType):
    """A package in which the function `search` comes before the part of the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        # Importing a part sets it as an attribute of its package.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
