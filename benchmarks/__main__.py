"""Print the bars of one area as JSON lines; exit non-zero only when one cannot be measured."""

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bar import Bar, to_line

_HERE = Path(__file__).parent
_COULD_NOT_MEASURE = 1


def main() -> int:
    """Run the area that the command line names."""
    areas = sorted(path.parent.name for path in _HERE.glob("*/bars.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("area", choices=areas, help="what to measure")
    parser.add_argument("--small", action="store_true", help="the smallest form, for each commit")
    chosen = parser.parse_args()
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    run: Callable[..., Iterator[Bar]] = importlib.import_module(
        f"benchmarks.{chosen.area}.bars"
    ).run
    printed = 0
    for bar in run(small=chosen.small):
        print(to_line(bar, command=command), flush=True)
        printed += 1
    if printed == 0:
        print(f"Area {chosen.area!r} gave no bar. Expected at least one.", file=sys.stderr)
        return _COULD_NOT_MEASURE
    return 0


if __name__ == "__main__":
    sys.exit(main())
