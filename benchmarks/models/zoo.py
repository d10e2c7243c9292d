"""Every model of the zoo: traced, searched and verified, or named with the reason why not."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

from benchmarks.bar import Bar, judged
from benchmarks.models.targets import TARGETS
from benchmarks.models.zoo_search import READERS
from benchmarks.zoo.place import ZOO

SEARCHED: Final = "loss of the zoo's plan beside one format: "
_ALL: Final = "models of the zoo traced, searched and verified"
_MISSED: Final = "models of the zoo whose plan misses a forecast"
_SMALL: Final = ("cifar10_resnet20", "mnist_ddpm_starter")
_SHOWN: Final = 300  # characters of a failure


def zoo(*, small: bool) -> Iterator[Bar]:
    """Search each model in a process of its own; the small form takes two of them."""
    names = _models()
    if not names:
        print("The zoo is not beside this checkout: its models are SKIPPED.", file=sys.stderr)
        return
    failures: dict[str, str] = {}
    missed: dict[str, list[str]] = {}
    wanted = [name for name in names if name in _SMALL] if small else names
    for name in wanted:
        found, reason = _searched(name, small=small)
        if reason or found["broken"]:
            failures[name] = reason or f"breaks {', '.join(found['broken'])}"
        if found:
            missed[name] = found["missed"]
            ratio = found["plan"]["loss"] / found["one_format"]["loss"]
            yield judged(
                f"{SEARCHED}{name}",
                [ratio],
                target=TARGETS[SEARCHED.rstrip(": ")],
                extra={"model": name} | found,
            )
    yield judged(
        _ALL,
        [1 - len(failures) / len(wanted)],
        target=TARGETS[_ALL],
        extra={"models": wanted, "failures": failures},
    )
    yield judged(
        _MISSED,
        [sum(1 for quantities in missed.values() if quantities)],
        target=TARGETS[_MISSED],
        extra={"missed": missed},
    )


def _models() -> list[str]:
    """Return the folders of the zoo that hold a model, by what they say of themselves."""
    kinds = {
        path.parent.name: str(json.loads(path.read_text(encoding="utf-8"))["kind"])
        for path in sorted(ZOO.glob("*/meta.json"))
    }
    return [name for name, kind in kinds.items() if kind.startswith("model")]


def _searched(name: str, *, small: bool) -> tuple[dict[str, Any], str]:
    """Return the figures of one model, or why there are none."""
    if name not in READERS:
        return {}, "nothing here says how its weights are put together"
    command = [sys.executable, "-m", "benchmarks.models.zoo_search", name]
    done = subprocess.run(
        [*command, *(["--small"] if small else [])], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {}, f"ended with {done.returncode}: {done.stderr.strip()[-_SHOWN:]}"
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures, ""
