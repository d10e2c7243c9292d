"""What a caller asks for: model, data, budgets. Unknown fields are refused."""

from typing import Annotated, Any, Literal, TypeAlias, final

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Digest: TypeAlias = Annotated[
    str,
    Field(
        pattern=r"^sha256:[0-9a-f]{64}$",
        description="Name of an upload: its SHA-256.",
        examples=["sha256:" + "0" * 64],
    ),
]
# One folder deep, as in `1_Pooling/config.json`; no name starts with a dot, so none is `..`.
FileName: TypeAlias = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99})?$")
]
RootName: TypeAlias = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$", examples=["models"])
]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=300)]
Budgets: TypeAlias = Annotated[
    dict[Name, str | Annotated[float, Field(gt=0)]],
    Field(
        min_length=1,
        max_length=8,
        description="Limits with their units, such as `25%`, `12MB`, `4ms`, `115% of fastest`.",
        examples=[{"weight_bytes": "25%"}],
    ),
]
Fixed: TypeAlias = Annotated[
    dict[Name, Name],
    Field(
        max_length=10_000,
        description="Format by layer name or pattern.",
        examples=[{"embeddings.*": "w8"}],
    ),
]
Solver: TypeAlias = Annotated[str, Field(max_length=40, examples=["auto"])]
RuntimeName: TypeAlias = Literal["openvino", "onnxruntime", "torch", "simulation"]
TaskName: TypeAlias = Literal[
    "auto",
    "embedding",
    "classification",
    "causal_lm",
    "masked_lm",
    "retrieval",
    "dense",
    "denoiser",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


@final
class RootSource(_Strict):
    """A folder or file under a root that the server was started with."""

    root: RootName
    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1000,
            pattern=r"^[^\x00-\x1f]+$",
            description="Relative to the root.",
            examples=["minilm"],
        ),
    ]


@final
class ModelFiles(_Strict):
    """A model folder put together from uploads: `config.json`, safetensors, `tokenizer.json`."""

    files: Annotated[
        dict[FileName, Digest],
        Field(
            min_length=1,
            max_length=200,
            examples=[
                {
                    "config.json": "sha256:" + "0" * 64,
                    "model.safetensors": "sha256:" + "1" * 64,
                }
            ],
        ),
    ]


@final
class DataBlob(_Strict):
    """Samples that were uploaded."""

    blob: Digest
    format: Literal["npz", "jsonl"]


def _by_root(value: Any) -> str:  # noqa: ANN401 - whatever the caller sent
    names = value if isinstance(value, dict) else getattr(value, "model_fields_set", ())
    return "root" if "root" in names else "uploaded"


ModelSource: TypeAlias = Annotated[
    Annotated[RootSource, Tag("root")] | Annotated[ModelFiles, Tag("uploaded")],
    Discriminator(_by_root),
]
DataSource: TypeAlias = Annotated[
    Annotated[RootSource, Tag("root")] | Annotated[DataBlob, Tag("uploaded")],
    Discriminator(_by_root),
]
Size: TypeAlias = Annotated[int, Field(ge=1, le=2**20)]
Workload: TypeAlias = Annotated[
    dict[Name, dict[Name, Size | Annotated[tuple[Size, ...], Field(max_length=8)]]],
    Field(
        max_length=1,
        description="Shapes that latency is measured at: one name, then `batch` and `length`, "
        "or the shape of each input.",
        examples=[{"b1": {"batch": 1, "length": 32}}],
    ),
]


@final
class JobRequest(_Strict):
    """A search: what `mpsearch.search` takes, with sources that a server can reach."""

    model: ModelSource
    calibration: DataSource
    validation: DataSource | None = None
    test: DataSource | None = None
    budgets: Budgets
    task: TaskName = "auto"
    formats: (
        Annotated[tuple[Name, ...], Field(min_length=1, max_length=40, examples=[["w8a8", "w4"]])]
        | None
    ) = None
    fixed: Fixed | None = None
    runtime: RuntimeName = "openvino"
    workload: Workload | None = None
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    solver: Solver = "auto"
