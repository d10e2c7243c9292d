"""Shut this process in, then become a program: `... enter RULES PROGRAM [ARGUMENT ...]`."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from mpsearch.worker.sandbox import landlock, limits, seccomp
from mpsearch.worker.sandbox.rules import Rules, rules_from_json
from mpsearch.worker.sandbox.system import LayerMissingError


def main(arguments: list[str]) -> None:
    """Apply every layer that the kernel has, and become the program."""
    text, *command = arguments
    missing = enter(rules_from_json(text))
    for layer in missing:
        sys.stderr.write(f"The kernel has no {layer}; the sandbox lacks this layer.\n")
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606  # that is what it is for


def enter(rules: Rules) -> tuple[str, ...]:
    """Apply every layer; return the names of those that the kernel lacks.

    Raises:
        RuntimeError: Other threads run already, which would stay outside.
        OSError: The kernel refused to apply a layer that it has.
    """
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError("There are several threads. Expected one: the others stay outside.")
    missing: list[str] = []
    layers: dict[str, Callable[[], None]] = {
        "rlimits": lambda: limits.restrict(rules),
        "landlock": lambda: landlock.restrict(rules),
        "capabilities": limits.drop_capabilities,
        "seccomp": seccomp.restrict,
    }
    for name, apply in layers.items():
        try:
            apply()
        except LayerMissingError:
            missing.append(name)
    return tuple(missing)


if __name__ == "__main__":
    main(sys.argv[1:])
