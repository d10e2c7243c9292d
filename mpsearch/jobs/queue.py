"""What API and worker agree on about the queue: names, versions, how arguments are written."""

from typing import Final

from dbos import DBOS, DBOSPortableJSONSerializer

APPLICATION: Final = "mpsearch"
QUEUE: Final = "dev:cpu"
WORKFLOW: Final = "search"
# Raise it when the steps of the workflow change: workers take only jobs of their own number.
WORKFLOW_SCHEMA: Final = "1"
# DBOS's own default is pickle, which would run whatever stands in the database.
SERIALIZER: Final = DBOSPortableJSONSerializer()


def runners_queue(queue: str) -> str:
    """Return the queue of a device's runners: what waits on it takes the device for itself.

    A job's own workflow waits for its runners on the queue of jobs, and so holds back none.

    Example:
        >>> runners_queue("dev:cpu")
        'dev:cpu:runners'
    """
    return f"{queue}:runners"


def migrate_queue(url: str) -> None:
    """Make or upgrade the tables of DBOS: no client works before."""
    DBOS.migrate(url)
