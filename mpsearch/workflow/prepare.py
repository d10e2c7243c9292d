"""Model and data made ready to measure: traced, split, spilled to the cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias, final

import onnx
from torch import Tensor, nn
from torch.export import ExportedProgram

from mpsearch.core.cache import Cache, default_cache_folder
from mpsearch.core.formats import format_named
from mpsearch.core.graph import is_product_name
from mpsearch.core.hardware import Workload
from mpsearch.core.plan import Plan
from mpsearch.core.progress import Progress, tracked
from mpsearch.errors import DataError, UsageError
from mpsearch.execution import run
from mpsearch.quant.ranges import DEFAULT_RANGE_METHOD, check_method
from mpsearch.tasks import TASKS, AbstractTask, Batch, CallableTask, Dataset, guess_task
from mpsearch.tasks.collate import LABELS
from mpsearch.tracing import (
    LoadedModel,
    OnnxModel,
    TracedModel,
    base_onnx,
    load_folder,
    load_onnx,
    trace_model,
    trace_onnx,
    trace_program,
)
from mpsearch.tracing.call import takes_structure
from mpsearch.tracing.pipeline import INDEX, LoadedPipeline, load_pipeline
from mpsearch.workflow.reading import (
    DataSource,
    Loaded,
    Reader,
    input_names,
    pictures_of,
    synthetic_told,
)
from mpsearch.workflow.workloads import WorkloadRequest, workloads_of

ModelSource: TypeAlias = (
    nn.Module
    | ExportedProgram
    | TracedModel
    | LoadedModel
    | LoadedPipeline
    | OnnxModel
    | Path
    | str
)
# A name in `TASKS`, "auto", a task, or a function of the raw output and the batch.
TaskSource: TypeAlias = str | AbstractTask | Callable[[Any, Batch], Tensor]

# Without validation data this share of the samples, the last ones, serves as such.
VALIDATION_SHARE = 0.3
ONNX_SUFFIX = ".onnx"
JOINTLY: Final = "jointly"
APART: Final = "apart"
_PHASE = "read and trace"


@final
@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A traced model with its task, data in parts that do not overlap, and the base ONNX file.

    `base` is None under runtime `simulation`, which builds nothing. `ranges` is how static
    activations are calibrated, `is_apart` whether weights and inputs are measured apart.
    """

    traced: TracedModel
    task: AbstractTask
    calibration: Dataset
    validation: Dataset
    test: Dataset | None
    base: onnx.ModelProto | None
    workloads: tuple[Workload, ...]
    cache: Cache
    ranges: str = DEFAULT_RANGE_METHOD
    is_apart: bool = False
    has_own_validation: bool = True

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what must be said of the data, in every report."""
        parts = (self.calibration, self.validation, *(() if self.test is None else (self.test,)))
        return (synthetic_told(),) if any(part.is_synthetic for part in parts) else ()


def prepare(
    model: "ModelSource | Prepared",
    calibration: DataSource,
    *,
    task: TaskSource,
    validation: DataSource | None,
    test: DataSource | None,
    runtime: str,
    workloads: WorkloadRequest | None,
    cache: Path | str | None,
    progress: Progress | None,
    ranges: str = DEFAULT_RANGE_METHOD,
    pairs: str = JOINTLY,
    has_products: bool = False,
) -> Prepared:
    """Read model and data once and trace the model.

    With `has_products`, products of two activations are layers; see `offers_products`. A model
    that is given traced stays as it is, and what is prepared already is returned.

    Raises:
        UsageError: There are no such ranges or pairs.
        ModelError: The model cannot be read or exported, or has nothing to quantise.
        DataError: Data does not fit the model.
    """
    if isinstance(model, Prepared):
        return model
    check_method(ranges)
    _check_pairs(pairs)
    store = Cache(folder=Path(cache) if cache else default_cache_folder())
    steps = tracked(("model", "data", "trace", "export"), _PHASE, total=4, progress=progress)
    next(steps)
    source = _loaded(model, has_products=has_products)
    next(steps)
    reader = Reader(source=source, folder=store.folder, model=_folder_of(model))
    parts = _split(reader, calibration=calibration, validation=validation, test=test)
    next(steps)
    plain = _traced(source, parts[0], has_products=has_products)
    traced = _with_runs(plain, source=source, calibration=calibration)
    next(steps)
    base = None if runtime == "simulation" else base_onnx(traced)
    next(steps, None)
    return Prepared(
        traced=traced,
        task=_task(task, source=source, traced=traced, data=parts[0]),
        calibration=parts[0],
        validation=parts[1],
        test=parts[2],
        base=base,
        workloads=workloads_of(
            workloads, examples={name: tuple(t.shape) for name, t in traced.example.items()}
        ),
        cache=store,
        ranges=ranges,
        is_apart=pairs == APART,
        has_own_validation=validation is not None,
    )


def offers_products(formats: Sequence[str] | None) -> bool:
    """Return whether a format is asked for that products of two activations take.

    Only then are they layers: plans without such a format stay as they always were.
    """
    return any(format_named(name).is_of_inputs for name in formats or ())


def names_products(plan: Plan) -> bool:
    """Return whether products of two activations are among the layers of a plan."""
    return any(map(is_product_name, plan.assignment))


def traced_source(
    model: ModelSource, *, example: DataSource | None = None, has_products: bool = False
) -> TracedModel:
    """Return the traced model; a module or ONNX file with the first batch of `example`.

    Raises:
        DataError: It needs an example and none is given.
    """
    source = _loaded(model, has_products=has_products)
    if isinstance(source, TracedModel):
        return source
    if isinstance(source, LoadedModel) and example is None:
        return trace_model(
            source.module, source.example, root=source.root, has_products=has_products
        )
    if example is None:
        raise DataError(
            f"A {type(source).__name__} is given without data. Expected an example of its inputs, "
            "since a module is traced by running it. Pass the calibration data as `example`."
        )
    with TemporaryDirectory() as folder:
        data = Reader(source=source, folder=Path(folder)).read(example)
        return _traced(source, data, has_products=has_products)


def _check_pairs(pairs: str) -> None:
    if pairs not in {JOINTLY, APART}:
        raise UsageError(
            f"Pairs {pairs!r} of weight and input are unknown. Expected {JOINTLY!r} or {APART!r}. "
            "Choose one of them."
        )


def _folder_of(model: ModelSource) -> Path | None:
    return Path(model) if isinstance(model, str | Path) and Path(model).is_dir() else None


def _loaded(model: ModelSource, *, has_products: bool) -> Loaded:
    if isinstance(model, ExportedProgram):
        return trace_program(model, has_products=has_products)
    if not isinstance(model, str | Path):
        return model
    path = Path(model)
    if path.suffix == ONNX_SUFFIX:
        return load_onnx(path)
    return load_pipeline(path) if (path / INDEX).is_file() else load_folder(path)


def _split(
    reader: Reader,
    *,
    calibration: DataSource,
    validation: DataSource | None,
    test: DataSource | None,
) -> tuple[Dataset, Dataset, Dataset | None]:
    """Return calibration, validation and test data; the first is split where it must serve."""
    whole = reader.read(calibration)
    held_out = None if test is None else reader.read(test)
    if validation is not None:
        return whole, reader.read(validation), held_out
    fitting, checking = whole.split(VALIDATION_SHARE)
    return fitting, checking, held_out


def _traced(source: Loaded, calibration: Dataset, *, has_products: bool) -> TracedModel:
    if isinstance(source, TracedModel):
        return source
    first = next(iter(calibration))
    names = input_names(source)
    if isinstance(source, nn.Module) and takes_structure(source):
        names = tuple(name for name in first if name in names or name not in LABELS)
    missing = [name for name in names if name not in first]
    if missing:
        raise DataError(
            f"The calibration data has {sorted(first)}, but the model also takes "
            f"{missing}. Expected all of {list(names)}. Name the inputs in the data."
        )
    example = {name: first[name] for name in names}
    if isinstance(source, LoadedModel | LoadedPipeline):
        return trace_model(source.module, example, root=source.root, has_products=has_products)
    if isinstance(source, OnnxModel):
        return trace_onnx(source, example, has_products=has_products)
    return trace_model(source, example, has_products=has_products)


def _with_runs(traced: TracedModel, *, source: Loaded, calibration: DataSource) -> TracedModel:
    """Say of each layer of a denoiser how often it runs for one picture."""
    pictures = pictures_of(calibration) if isinstance(source, LoadedPipeline) else None
    if not isinstance(source, LoadedPipeline) or pictures is None:
        return traced
    graph = traced.graph.with_runs({"*": source.calls(pictures.steps)})
    return replace(traced, graph=graph)


def _task(
    task: TaskSource,
    *,
    source: Loaded,
    traced: TracedModel,
    data: Dataset,
) -> AbstractTask:
    if isinstance(task, AbstractTask):
        return task
    if not isinstance(task, str):
        return CallableTask(function=task)
    if task == "auto" and isinstance(source, LoadedModel | LoadedPipeline):
        task = source.task
    if task == "auto":
        first = next(iter(data))
        task = guess_task(run(traced, first), first)
    if task not in TASKS:
        raise DataError(
            f"Task {task!r} is unknown. Expected 'auto' or one of {', '.join(TASKS)}. "
            "Choose one, or pass a callable from (raw output, batch) to a tensor."
        )
    if isinstance(source, LoadedModel) and task == source.task:
        return replace(TASKS[task], **source.task_settings)
    return TASKS[task]
