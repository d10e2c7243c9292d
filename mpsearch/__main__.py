"""Start the command line: `mpsearch` or `python -m mpsearch`."""

import os
import sys


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    _keep_stdout_for_answers()
    from mpsearch.cli.app import app

    app(prog_name="mpsearch")


def _keep_stdout_for_answers() -> None:
    """Let Python alone write to stdout: what libraries print from C goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = answers


if __name__ == "__main__":
    main()
