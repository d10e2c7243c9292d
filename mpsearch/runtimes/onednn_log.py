"""What oneDNN itself says it runs: its log, while one piece of a model is computed."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

import torch

_STDOUT: Final = 1  # the log goes to the process' own output, past Python's
_MARK: Final = "onednn_verbose"
_EXECUTED: Final = "exec"
# Moving numbers into another order is no layer's kernel.
_MOVES: Final = frozenset({"reorder", "concat"})
# onednn_verbose,version,primitive,exec,engine,kind,implementation,propagation,tensors,...
_ACTION, _KIND, _NAME, _TENSORS = 3, 5, 6, 8


@final
@dataclass(frozen=True, kw_only=True)
class Executed:
    """One primitive that oneDNN ran: its kind, its implementation, and the types it read.

    Example:
        >>> line = (
        ...     "onednn_verbose,v1,primitive,exec,cpu,matmul,brg:avx512_core_vnni,undef,"
        ...     "src:u8:a:blocked:ab::f0 wei:s8::blocked:ab::f0 dst:f32:a:blocked:ab::f0,,,2x3"
        ... )
        >>> parsed([line])[0].source, parsed([line])[0].weight
        ('u8', 's8')
    """

    kind: str
    implementation: str
    source: str
    weight: str


@contextmanager
def listening() -> Iterator[list[Executed]]:
    """Collect what oneDNN runs inside the context; the list is filled at its end.

    The output of the process is redirected meanwhile, so no other thread should print.
    """
    found: list[Executed] = []
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STDOUT)
        try:
            with torch.backends.mkldnn.verbose(  # type: ignore[no-untyped-call]  # torch leaves it
                torch.backends.mkldnn.VERBOSE_ON
            ):
                yield found
        finally:
            os.dup2(kept, _STDOUT)
            os.close(kept)
            file.seek(0)
            found.extend(parsed(file.read().decode(errors="replace").splitlines()))


def parsed(lines: Sequence[str]) -> list[Executed]:
    """Return the primitives that were run and compute something."""
    rows = [line.split(",") for line in lines if line.startswith(_MARK)]
    return [
        Executed(
            kind=row[_KIND],
            implementation=row[_NAME],
            source=_type(row[_TENSORS], "src"),
            weight=_type(row[_TENSORS], "wei"),
        )
        for row in rows
        if len(row) > _TENSORS and row[_ACTION] == _EXECUTED and row[_KIND] not in _MOVES
    ]


def _type(tensors: str, role: str) -> str:
    """Return the type of `src`, `wei` or the like; "" where there is none."""
    for each in tensors.split():
        name, _, rest = each.partition(":")
        if name == role:
            return rest.partition(":")[0]
    return ""
