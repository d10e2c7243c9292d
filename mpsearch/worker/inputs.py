"""Files that a request names, where the runner of its job finds them: it may read no other."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from mpsearch.jobs.request import DataSource, JobRequest
from mpsearch.jobs.sources import Sources, onnx_name

# Large, and read by libraries that take one file for what it is; others refuse, or misread, a
# file with several names.
_LINKED: Final = (".safetensors", ".npz", ".jsonl")


@final
@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The model's folder or file, and the files of samples by their part in the search."""

    model: Path
    data: Mapping[str, Path]

    @property
    def places(self) -> tuple[Path, ...]:
        """Return all of them; an ONNX file reads its weights from files beside it."""
        model = self.model if self.model.is_dir() else self.model.parent
        return (model, *self.data.values())


def laid_out(request: JobRequest, *, sources: Sources, folder: Path) -> Inputs:
    """Return what a request names; uploads get the names that they need in `folder`.

    Raises:
        AbsentError: Something is no longer there.
        UsageError: Something is of a kind that is not read.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    named = {
        "calibration": request.calibration,
        "validation": request.validation,
        "test": request.test,
    }
    return Inputs(
        model=_model(request, sources=sources, folder=folder / "model"),
        data={
            name: _data(source, sources=sources, target=folder / name)
            for name, source in named.items()
            if source is not None
        },
    )


def _model(request: JobRequest, *, sources: Sources, folder: Path) -> Path:
    found = sources.model(request.model)
    if isinstance(found, Path):
        return found
    for name, blob in found.items():
        _place(blob, folder / name)
    file = onnx_name(found)
    return folder if file is None else folder / file


def _data(source: DataSource, *, sources: Sources, target: Path) -> Path:
    path, suffix = sources.data(source)
    return path if path.suffix == suffix else _place(path, target.with_suffix(suffix))


def _place(blob: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix in _LINKED:
        target.hardlink_to(blob)
    else:
        shutil.copyfile(blob, target)
    return target
