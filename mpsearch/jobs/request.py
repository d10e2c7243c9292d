"""What a caller asks for: model, data, budgets. Unknown fields are refused."""

from typing import Annotated, Any, Final, Literal, TypeAlias, final

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

# Of workers of one kind. No request names the queue of a device's runners, which has two colons.
# So short that it fits beside the name of a runtime.
QUEUE_NAME: Final = r"^dev:[a-z0-9][a-z0-9._-]{0,22}$"

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
RangeMethod: TypeAlias = Literal["mse", "percentile", "entropy", "minmax", "smoothed"]
TaskName: TypeAlias = Literal[
    "auto",
    "embedding",
    "classification",
    "causal_lm",
    "seq2seq_lm",
    "masked_lm",
    "ctc",
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
Workloads: TypeAlias = Annotated[
    dict[Name, dict[Name, Size | Annotated[tuple[Size, ...], Field(max_length=8)]]],
    Field(
        max_length=8,
        description="Shapes that latency is measured at, by name: `batch` and `length`, or the "
        "shape of each input. A budget on `latency` means the first, `latency@b32` the one named.",
        examples=[{"b1": {"batch": 1, "length": 32}, "b32": {"batch": 32, "length": 32}}],
    ),
]


@final
class Group(_Strict):
    """Layers that are judged by a metric of their own."""

    name: Name
    layers: Annotated[
        tuple[Name, ...],
        Field(
            min_length=1,
            max_length=10_000,
            description="Names, patterns, or kinds of layers; the first group that matches counts.",
            examples=[["kind:conv", "time_embed.*"]],
        ),
    ]
    metric: Annotated[Name, Field(examples=["sqnr_list"])] = "output_error"
    task: TaskName | None = None


Groups: TypeAlias = (
    Annotated[Name, Field(description="A grouping that ships.", examples=["diffusion"])]
    | Annotated[tuple[Group, ...], Field(min_length=2, max_length=40)]
)


@final
class JobRequest(_Strict):
    """A search: what `mpsearch.search` takes, with sources that a server can reach."""

    model: ModelSource
    calibration: DataSource
    validation: DataSource | None = None
    test: DataSource | None = None
    budgets: Budgets | None = None
    max_drop: Annotated[
        float | None,
        Field(
            gt=0,
            le=100,
            description="Lose at most so many points of a measure, with 95 % confidence; then "
            "spend least of `minimise`. Budgets are optional beside it.",
            examples=[0.5],
        ),
    ] = None
    drop_of: Annotated[
        Name | None, Field(description="Of which measure; by default the first labelled one.")
    ] = None
    minimise: Annotated[Name, Field(examples=["latency", "weight_bytes"])] = "latency"
    task: TaskName = "auto"
    formats: (
        Annotated[tuple[Name, ...], Field(min_length=1, max_length=40, examples=[["w8a8", "w4"]])]
        | None
    ) = None
    fixed: Fixed | None = None
    runtime: RuntimeName = "openvino"
    workloads: Workloads | None = None
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    solver: Solver = "auto"
    effort: Annotated[
        float, Field(gt=0, le=1000, description="How much to spend, in exact passes of layers.")
    ] = 1.25
    seconds: Annotated[
        float | None, Field(gt=0, description="Measure and refine for about so long at most.")
    ] = None
    ranges: Annotated[
        RangeMethod, Field(description="How ranges of static activations are found.")
    ] = "mse"
    pairs: Annotated[
        Literal["jointly", "apart"],
        Field(description="Weights and inputs measured jointly, or apart and added."),
    ] = "jointly"
    groups: Groups | None = None
    queue: Annotated[
        str | None,
        Field(
            pattern=QUEUE_NAME,
            description="Which workers do it: those that were started with this `--queue`. By "
            "default those of `dev:cpu`; `/v1/devices` says what each measures on.",
            examples=["dev:h200"],
        ),
    ] = None

    @model_validator(mode="after")
    def _has_an_aim(self) -> "JobRequest":
        if not self.budgets and self.max_drop is None:
            raise ValueError(
                "Neither budgets nor max_drop is given. Expected at least one limit, such as "
                '{"weight_bytes": "25%"}. Add one.'
            )
        return self
