"""Start a worker: `python -m mpsearch.worker DATA [--root NAME=FOLDER ...]`."""

import argparse
import json
import os
import sys
from pathlib import Path

from mpsearch.jobs.data_folder import DataFolder
from mpsearch.jobs.logs import log_as_json
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
    parser.add_argument(
        "--database-by-stdin", action="store_true", help="its URL is the first line, in JSON"
    )
    parser.add_argument("--bucket", metavar="URL", help="where uploads are kept, if in a bucket")
    parser.add_argument("--shard-seconds", type=float, help="the least that a shard takes")
    parser.add_argument("--json-logs", action="store_true", help="a JSON object per line")
    options = parser.parse_args()
    if options.json_logs:
        log_as_json(sys.stderr)
    database = json.loads(_first_line()) if options.database_by_stdin else None
    if options.end_with_parent:
        end_with_parent()
    pairs = (text.partition("=") for text in options.root)
    data = DataFolder(path=options.data, database=database, bucket=options.bucket)
    roots = {name: Path(folder) for name, _, folder in pairs}
    work(data, roots=roots, shard_seconds=options.shard_seconds)


def _first_line() -> str:
    # Unbuffered, or a reader of stdin would keep what is not its own.
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(sys.stdin.fileno(), 1)
        if not piece:
            break
        line += piece
    return line.decode()


if __name__ == "__main__":
    main()
