"""Logs for machines: one JSON object per line, with the request and the job that it is about."""

import logging
from typing import IO, Final

import structlog

_LOGGER: Final = "mpsearch"
# Each answer, for machines only.
ACCESS: Final = "mpsearch.access"


def log_as_json(stream: IO[str], *, level: int = logging.INFO) -> None:
    """Write every record of this process as a line of JSON.

    What `structlog.contextvars` holds, such as `request_id` and `job_id`, is in each of them.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root, ours = logging.getLogger(), logging.getLogger(_LOGGER)
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    # The command line shows records to people: here they would stand twice.
    ours.handlers = []
    ours.setLevel(level)
    logging.getLogger(ACCESS).setLevel(level)
