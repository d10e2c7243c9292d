"""A child that ends with its parent: a pipe on stdin closes whenever the parent goes."""

import os
import sys
import threading
from typing import Final

ORPHANED: Final = 75  # EX_TEMPFAIL of sysexits.h: somebody will try again


def end_with_parent() -> None:
    """End this process at once when stdin closes; what it has measured is in the cache."""
    threading.Thread(target=_wait_for_the_end, name="lifeline", daemon=True).start()


def _wait_for_the_end() -> None:
    # The descriptor itself: a reader of sys.stdin would hold its lock during shutdown.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(ORPHANED)
