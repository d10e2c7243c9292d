"""What every command shares: where words go, how errors end, what Ctrl-C leaves behind."""

import json
import logging
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import IO, Final, final

import numpy as np
import typer
from rich.console import Console, RenderableType

from mpsearch.cli.progress import ProgressBars
from mpsearch.errors import MissingPackageError, MpsearchError

# As a shell counts a process that SIGINT (2) ended: 128 + 2.
INTERRUPTED: Final = 130

_WIDTH_OF_A_PIPE: Final = 160

# Packages of the extra `search`: planning works without them.
_SEARCH_PACKAGES = frozenset(
    {"torch", "onnx", "onnxscript", "openvino", "safetensors", "transformers", "tokenizers"}
    | {"ml_dtypes", "jinja2"}
)


@final
@dataclass(frozen=True, kw_only=True)
class Session:
    """One run of a command: its answer goes to stdout once, everything else to stderr."""

    as_json: bool
    messages: Console
    progress: ProgressBars
    stdout: IO[str]

    def say(self, text: str) -> None:
        """Tell the user something that is no part of the answer."""
        self.messages.print(text, markup=False, highlight=False, soft_wrap=True)

    def answer(self, value: object, *, shown: RenderableType = "") -> None:
        """Give the answer: `value` as JSON where that was asked for, else what is `shown`."""
        if self.as_json:
            self.stdout.write(json.dumps(plain(value), allow_nan=False) + "\n")
        else:
            # A pipe has no width of its own; a table is not to be cut there.
            width = None if self.stdout.isatty() else _WIDTH_OF_A_PIPE
            Console(file=self.stdout, width=width).print(shown)
        self.stdout.flush()


@contextmanager
def session(*, as_json: bool, resumes: bool = False) -> Iterator[Session]:
    """Run a command's body: libraries cannot write to stdout, errors become exit codes.

    Args:
        as_json: Whether stdout takes nothing but JSON, errors included.
        resumes: Whether the same command, run again after Ctrl-C, goes on where it was.
    """
    stdout = sys.stdout
    messages = Console(stderr=True)
    bars = ProgressBars(messages)
    with (
        redirect_stdout(sys.stderr),
        warnings.catch_warnings(),
        _logging_to(messages),
        bars.drawing(),
    ):
        # They are for the authors of the libraries that we call, not for who runs a command.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        run = Session(as_json=as_json, messages=messages, progress=bars, stdout=stdout)
        try:
            yield run
        except MpsearchError as error:
            _fail(run, error)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _SEARCH_PACKAGES:
                raise
            _fail(run, _missing(package))
        except KeyboardInterrupt:
            run.say(_farewell(resumes=resumes))
            raise typer.Exit(INTERRUPTED) from None


def plain(value: object) -> object:
    """Return what JSON can hold of dataclasses, arrays, paths and mappings; no number is null."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, str | Path) else value


@contextmanager
def _logging_to(console: Console) -> Iterator[None]:
    logger = logging.getLogger("mpsearch")
    handler, level = _Lines(console), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@final
class _Lines(logging.Handler):
    """Writes each record as one line above the progress bars; warnings say that they are."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; work goes on where that cannot be done, as on a full disk."""
        kind = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        text = kind + self.format(record)
        try:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        except OSError:
            self.handleError(record)


def _fail(run: Session, error: MpsearchError) -> None:
    if run.as_json:
        fault = {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
        # What an error holds besides its words: nearest reachable values, samples needed.
        run.answer({"error": fault | vars(error)})
    run.messages.print("[bold red]error[/]", end=": ")
    run.say(str(error))
    raise typer.Exit(error.exit_code) from None


def _missing(package: str) -> MissingPackageError:
    return MissingPackageError(
        f"Package {package!r} is not installed. Expected what measuring a model needs. "
        "Run `pip install 'mpsearch[search]'`."
    )


def _farewell(*, resumes: bool) -> str:
    if resumes:
        return (
            "Interrupted. What was measured is kept in the cache: run the same command again and "
            "it goes on from there."
        )
    return "Interrupted. Nothing was written."
