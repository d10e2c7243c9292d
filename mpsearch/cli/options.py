"""Options that several commands share, and how their texts are read."""

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from mpsearch.errors import BudgetError, DataError, FormatError, ModelError, UsageError

if TYPE_CHECKING:
    from torch import nn

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Write the answer as JSON; stdout holds nothing else.")
]
Model: TypeAlias = Annotated[
    Path | None,
    typer.Option("--model", help="Hugging Face folder with safetensors weights, or an ONNX file."),
]
ModelFrom: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model-from",
        metavar="PACKAGE.MODULE:CALLABLE",
        help="Instead of a folder: a callable of yours that returns the torch module.",
    ),
]
Calibration: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--calibration",
        help="Samples to measure on: .npz, .jsonl, .parquet, a saved dataset, a folder of images.",
    ),
]
OptionalCalibration: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        help="Samples to measure on: .npz, .jsonl, .parquet, a saved dataset, a folder of images. "
        "Without any, inputs are made from the model's weights, which is said loudly.",
    ),
]
Validation: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--validation", help="Samples to choose on. [default: the last 30 % of calibration]"
    ),
]
Test: TypeAlias = Annotated[
    Path | None, typer.Option("--test", help="Samples to report on, used for nothing else.")
]
Steps: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        help="How often the denoiser runs for one picture of a pipeline, as when it is deployed: "
        "its calls are recorded over so many steps. [default: 20]",
    ),
]
Task: TypeAlias = Annotated[
    str,
    typer.Option(
        "--task",
        help="auto, embedding, classification, causal_lm, masked_lm, seq2seq_lm, ctc, retrieval, "
        "dense or denoiser.",
    ),
]
Budgets: TypeAlias = Annotated[
    list[str],
    typer.Option(
        "--budget",
        metavar="NAME=LIMIT",
        help="Such as weight_bytes=18%, latency='115% of fastest', latency=4ms. Repeatable.",
    ),
]
OptionalBudgets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="NAME=LIMIT",
        help="Such as weight_bytes=18%, latency='115% of fastest', latency=4ms. Repeatable; "
        "optional with --max-drop.",
    ),
]
MaxDrop: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="POINTS",
        help="Lose at most so many points (hundredths) of a measure, with 95 % confidence on "
        "validation data, and spend least of --minimise: 0.5 is half a percent of accuracy.",
    ),
]
DropOf: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--drop-of",
        metavar="MEASURE",
        help="The measure of --max-drop, such as accuracy or agreement. "
        "[default: the first labelled one, else the first label-free one]",
    ),
]
Minimise: TypeAlias = Annotated[
    str,
    typer.Option("--minimise", metavar="NAME", help="With --max-drop: latency, weight_bytes, ..."),
]
Groups: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--groups",
        metavar="FILE",
        help="Groups of layers with metrics of their own: a .toml file, or 'diffusion'.",
    ),
]
Formats: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--format", help="A format to choose from. Repeatable. [default: all that run]"),
]
Ranges: TypeAlias = Annotated[
    str,
    typer.Option(
        "--ranges",
        help="Ranges of static activations by mse, percentile, entropy, minmax, or smoothed: "
        "outliers of linear layers' inputs move into the weights first, as transformers like.",
    ),
]
Pairs: TypeAlias = Annotated[
    str,
    typer.Option(
        "--pairs",
        help="Measure formats such as w4a8 jointly, or weights and inputs apart, which is faster.",
    ),
]
Fixed: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--fix", metavar="LAYER=FORMAT", help="Pin a layer or pattern. Repeatable."),
]
Runtime: TypeAlias = Annotated[
    str, typer.Option("--runtime", help="openvino, onnxruntime, torch, torch_cuda or simulation.")
]
Workloads: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--workload",
        metavar="NAME:INPUT=SHAPE,...",
        help="Shapes to time, such as b1:batch=1,length=32 or b1:ids=1x32,mask=1x32. Repeatable: "
        "a budget on latency means the first, latency@NAME the one named.",
    ),
]
Threads: TypeAlias = Annotated[
    int, typer.Option("--threads", min=1, help="Threads of deployment and of measuring.")
]
Seed: TypeAlias = Annotated[int, typer.Option("--seed", help="Where randomness starts.")]
CacheFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--cache", help="Folder of measured values. [default: the user's]")
]
Effort: TypeAlias = Annotated[
    float,
    typer.Option(
        "--effort",
        help="What search may spend, in exact passes of all layers; rounds from 2.5 on.",
    ),
]
Seconds: TypeAlias = Annotated[
    float | None, typer.Option("--seconds", help="What measuring may take: lowers the effort.")
]
Solver: TypeAlias = Annotated[
    str, typer.Option("--solver", help="auto, or the name of one: highs, lagrangian_core, ...")
]

PlanFile: TypeAlias = Annotated[Path, typer.Argument(help="plan.json of a search or solve.")]

_WORKLOAD = re.compile(r"(?P<name>[^:=,]+):(?P<sizes>.+)")
_SHAPE = re.compile(r"[1-9]\d*(x[1-9]\d*)*")


def read_budgets(texts: Sequence[str]) -> dict[str, str]:
    """Return {budget: limit} of texts such as 'latency=4ms'.

    Raises:
        BudgetError: One has no `=`, or a budget is given twice.

    Example:
        >>> read_budgets(["weight_bytes=18%", "latency=115% of fastest"])
        {'weight_bytes': '18%', 'latency': '115% of fastest'}
    """
    return _pairs(texts, option="--budget", example="weight_bytes=18%", kind=BudgetError)


def read_fixed(texts: Sequence[str] | None) -> dict[str, str] | None:
    """Return {layer or pattern: format} of texts such as 'encoder.*=w8'; None where there are none.

    Raises:
        FormatError: One has no `=`, or a layer is given twice.
    """
    if not texts:
        return None
    return _pairs(texts, option="--fix", example="'encoder.*=w8'", kind=FormatError)


def read_workloads(
    texts: Sequence[str] | None,
) -> dict[str, dict[str, int | tuple[int, ...]]] | None:
    """Return {name: {input or dimension: shape or size}} of the workloads.

    Raises:
        DataError: A text is malformed, or two have one name.

    Example:
        >>> read_workloads(["b1:batch=1,length=32", "b2:ids=2x32"])
        {'b1': {'batch': 1, 'length': 32}, 'b2': {'ids': (2, 32)}}
    """
    found = dict(_workload(text) for text in texts or ())
    if len(found) < len(texts or ()):
        raise DataError(
            f"Two of the workloads {', '.join(texts or ())} have one name. Expected a name for "
            "each. Rename one."
        )
    return found or None


def _workload(text: str) -> tuple[str, dict[str, int | tuple[int, ...]]]:
    match = _WORKLOAD.fullmatch(text)
    parts = [part.partition("=") for part in (match["sizes"].split(",") if match else ())]
    if match is None or not all(key and _SHAPE.fullmatch(shape) for key, _, shape in parts):
        raise DataError(
            f"Workload {text!r} cannot be read. Expected NAME:INPUT=SHAPE,... such as "
            "b1:batch=1,length=32 or b1:ids=1x32. Write sizes as whole numbers joined by x."
        )
    return match["name"], {key: _sizes(shape) for key, _, shape in parts}


def read_model(folder: Path | None, reference: str | None) -> "Path | nn.Module":
    """Return the folder, or the module that the user's own callable makes.

    Raises:
        UsageError: Neither or both are given.
        ModelError: The callable cannot be found, or returns no torch module.
    """
    if (folder is None) == (reference is None):
        raise UsageError(
            f"{'No model is' if folder is None else 'Two models are'} given. Expected one of "
            "--model FOLDER and --model-from PACKAGE.MODULE:CALLABLE. Give exactly one."
        )
    if folder is not None:
        return folder
    return _called(str(reference))


def _called(reference: str) -> "nn.Module":
    from torch import nn

    module_name, _, name = reference.partition(":")
    # As `python -m` does: the user's own modules stand in the current folder.
    sys.path.insert(0, str(Path.cwd()))
    try:
        make = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(
            f"Model {reference!r} cannot be found: {error}. Expected PACKAGE.MODULE:CALLABLE. "
            "Check both names, and that Python can import the module from here."
        ) from error
    finally:
        sys.path.pop(0)
    model = make() if callable(make) and not isinstance(make, nn.Module) else make
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{reference!r} gave a {type(model).__name__}. Expected a torch.nn.Module. "
            "Return the model from the callable."
        )
    return model


def _pairs(
    texts: Sequence[str], *, option: str, example: str, kind: type[UsageError]
) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = (part.strip() for part in text.partition("="))
        if not (name and separator and value) or name in found:
            fact = "is given twice" if name in found else "cannot be read"
            raise kind(
                f"{option} {text!r} {fact}. Expected one {option} {example} per name. "
                "Write the name, an equals sign and the value."
            )
        found[name] = value
    return found


def _sizes(shape: str) -> int | tuple[int, ...]:
    sizes = tuple(int(size) for size in shape.split("x"))
    return sizes[0] if len(sizes) == 1 else sizes
