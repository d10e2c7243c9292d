"""Loops as machine code where numba is installed, as they stand where it is not."""

import functools
import inspect
import os
import shutil
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

Loop = TypeVar("Loop", bound=Callable[..., object])

HAS_NUMBA = find_spec("numba") is not None


def compiled(function: Loop) -> Loop:
    """Return the function as machine code, kept on disk between processes.

    Functions of the same module that it calls are compiled with it. numba is imported at the
    first call, because that takes longer than a small solve.
    """
    return cast("Loop", _compile(function)) if HAS_NUMBA else function


@functools.cache
def _compile(function: Callable[..., object]) -> Callable[..., object]:
    import numba

    # Run-time type checks of tests wrap functions; machine code needs the bare ones.
    bare: Any = inspect.unwrap(function)
    scope = dict(bare.__globals__)
    for name in bare.__code__.co_names:
        called = scope.get(name)
        if inspect.isfunction(called) and called.__module__ == bare.__module__:
            scope[name] = _compile(called)
    clone = types.FunctionType(bare.__code__, scope, bare.__name__, bare.__defaults__)
    clone.__module__, clone.__qualname__ = bare.__module__, bare.__qualname__
    made = numba.njit(cache=True, nogil=True)(clone)
    if made.stats.cache_path is not None:
        source, target = Path(bare.__code__.co_filename), Path(made.stats.cache_path)
        _take_over(source, bare.__qualname__, target=target)
    return cast("Callable[..., object]", made)


def _take_over(source: Path, name: str, *, target: Path) -> None:
    """Begin with the machine code that lies beside the source, where it cannot be kept there.

    A process that is shut in may read it, as trusted as the source itself, but numba takes
    only folders that it can write to, and would compile everything again.
    """
    kept, stem = source.parent / "__pycache__", f"{source.stem}.{name}-"
    if target == kept or any(target.glob(f"{stem}*.nbi")):
        return
    # The index last, and each file at once: others may read them already.
    for file in sorted(kept.glob(f"{stem}*.nb[ci]")):
        unfinished = target / f"{file.name}.{os.getpid()}"
        shutil.copyfile(file, unfinished)
        unfinished.replace(target / file.name)
