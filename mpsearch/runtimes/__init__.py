"""Run plans for real, and find what each runtime supports: one runtime per file."""

from mpsearch.runtimes.comparison import (
    Agreement,
    NoiseCheck,
    agrees_with_simulation,
    compare_numbers,
)
from mpsearch.runtimes.loading import Runnable, load
from mpsearch.runtimes.registry import RUNTIMES
from mpsearch.runtimes.runtime import AbstractExecutable, AbstractRuntime, Kernel, NodeTime

__all__ = [
    "RUNTIMES",
    "AbstractExecutable",
    "AbstractRuntime",
    "Agreement",
    "Kernel",
    "NodeTime",
    "NoiseCheck",
    "Runnable",
    "agrees_with_simulation",
    "compare_numbers",
    "load",
]
