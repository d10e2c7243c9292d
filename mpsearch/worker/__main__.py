"""Start a worker: `python -m mpsearch.worker DATA [--root NAME=FOLDER ...]`."""

import argparse
from pathlib import Path

from mpsearch.jobs.data_folder import DataFolder
from mpsearch.worker.lifeline import end_with_parent
from mpsearch.worker.main import work


def main() -> None:
    """Read the arguments and work."""
    parser = argparse.ArgumentParser(prog="python -m mpsearch.worker", description=__doc__)
    parser.add_argument("data", type=Path, help="the data folder")
    parser.add_argument("--root", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument(
        "--end-with-parent", action="store_true", help="end when stdin closes, as a child does"
    )
    options = parser.parse_args()
    if options.end_with_parent:
        end_with_parent()
    pairs = (text.partition("=") for text in options.root)
    work(DataFolder(path=options.data), roots={name: Path(folder) for name, _, folder in pairs})


if __name__ == "__main__":
    main()
