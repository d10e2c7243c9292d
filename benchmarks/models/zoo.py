"""Every model of the zoo: traced, searched and verified, or named with the reason why not.

The whole form takes hours, so what a model gave is kept, and read when the bar runs again:
`python -m benchmarks.models.zoo [--fresh] [--kept FOLDER]` prints these lines alone.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.bar import Bar, judged, to_line
from benchmarks.models.targets import TARGETS
from benchmarks.models.zoo_search import MEAN_BITS, READERS, SAMPLES
from benchmarks.zoo.place import ZOO
from mpsearch.core.cache import content_hash, default_cache_folder
from mpsearch.core.files import write_atomically
from mpsearch.core.machine import installed_versions

SEARCHED: Final = "loss of the zoo's plan beside one format: "
_ALL: Final = "models of the zoo traced, searched and verified"
_MISSED: Final = "models of the zoo whose plan misses a forecast"
_SMALL: Final = ("cifar10_resnet20",)
_SHOWN: Final = 300  # characters of a failure
_KEPT: Final = "was_kept"
_REVISION: Final = 1  # raise it when the same model would give another row


def zoo(*, small: bool, kept: Path | None = None, is_fresh: bool = False) -> Iterator[Bar]:
    """Search each model in a process of its own; the small form takes one of them.

    Args:
        small: Whether to take few models and samples; nothing is kept then.
        kept: Where rows are kept; None for a folder of the cache.
        is_fresh: Whether to search again what is kept.
    """
    folder = kept or default_cache_folder() / "benchmarks" / "zoo"
    names = _models()
    if not names:
        print("The zoo is not beside this checkout: its models are SKIPPED.", file=sys.stderr)
        return
    failures: dict[str, str] = {}
    missed: dict[str, list[str]] = {}
    wanted = [name for name in names if name in _SMALL] if small else names
    for name in wanted:
        path = None if small else folder / f"{name}-{_key(name)}.json"
        found, reason = _known(path, is_fresh=is_fresh) or _searched(name, small=small)
        if path is not None and found and _KEPT not in found:
            write_atomically(path, json.dumps(found).encode())
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


def _key(name: str) -> str:
    """Return what a row depends on; another version of mpsearch gives another."""
    version = installed_versions(["mpsearch"]).get("mpsearch", "")
    return content_hash(
        _REVISION, name, MEAN_BITS, {k: list(v) for k, v in SAMPLES.items()}, version
    )[:16]


def _known(path: Path | None, *, is_fresh: bool) -> tuple[dict[str, Any], str] | None:
    """Return a row that is kept, and says so; None where there is none."""
    if path is None or is_fresh or not path.is_file():
        return None
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return figures | {_KEPT: True}, ""


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


def main() -> None:
    """Print the lines of the zoo alone, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="one model, few samples")
    parser.add_argument("--fresh", action="store_true", help="search again what is kept")
    parser.add_argument("--kept", type=Path, help="where rows are kept; the cache by default")
    chosen = parser.parse_args()
    command = " ".join(["python -m benchmarks.models.zoo", *sys.argv[1:]])
    for bar in zoo(small=chosen.small, kept=chosen.kept, is_fresh=chosen.fresh):
        print(to_line(bar, command=command), flush=True)


if __name__ == "__main__":
    main()
