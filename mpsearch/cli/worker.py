"""`mpsearch worker`: does the jobs of one queue, here or on another machine."""

import re
import sys
from typing import Annotated

import typer

from mpsearch.cli.serve import (
    DataOption,
    JsonLogs,
    RootOption,
    ShardSeconds,
    needs_server_packages,
    read_roots,
)
from mpsearch.cli.session import session
from mpsearch.errors import UsageError


def worker(
    *,
    data: DataOption = None,
    roots: RootOption = None,
    queue: Annotated[
        str, typer.Option("--queue", help="Its device, such as dev:cpu or dev:h200.")
    ] = "dev:cpu",
    shard_seconds: ShardSeconds = None,
    json_logs: JsonLogs = False,
) -> None:
    """Do jobs until Ctrl-C; on Postgres (MPS_DATABASE_URL), as many workers as you like.

    Every worker needs the data folder of the server, and the same roots.
    """
    with session(as_json=False, resumes=True) as run:
        folders = read_roots(roots or ())
        with needs_server_packages():
            from mpsearch.api.settings import data_folder
            from mpsearch.jobs.data_folder import default_data_folder
            from mpsearch.jobs.logs import log_as_json
            from mpsearch.jobs.request import QUEUE_NAME
            from mpsearch.worker.main import work
        if re.fullmatch(QUEUE_NAME, queue) is None:
            raise UsageError(
                f"Queue {queue!r} cannot be asked for. Expected dev: and a name, such as dev:h200. "
                "Correct it."
            )
        if json_logs:
            log_as_json(sys.stderr)
        folder = data_folder(data or default_data_folder())
        run.say(f"Working on {queue}, with the data in {folder.path}.")
        work(folder, roots=folders, queue=queue, shard_seconds=shard_seconds)
