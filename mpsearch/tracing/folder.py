"""A Hugging Face folder to a module: safetensors only, known architectures, offline."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from mpsearch.errors import MissingPackageError, ModelError
from mpsearch.tracing.architectures import Family, family_of, known_fields
from mpsearch.tracing.plausible import check_folder, check_parameters, meta_device
from mpsearch.tracing.wrappers import (
    CausalLanguageModel,
    ImageClassifier,
    SentenceEncoder,
    TextClassifier,
)

_PICKLES: Final = ("*.bin", "*.pt", "*.pt2", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_EXAMPLE_LENGTH: Final = 16  # longer than the window of no known model, short enough to be cheap
_IMAGE_SIZE: Final = 224  # of ImageNet models whose config names no size
_POOLING: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}


@final
@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A module with all that is needed to feed and trace it; `root` as in `trace_model`."""

    module: nn.Module
    input_names: tuple[str, ...]
    task: str
    example: Mapping[str, Tensor]
    root: str
    tokenizer_file: Path | None = None


def load_folder(path: Path) -> LoadedModel:
    """Load a transformers or sentence-transformers folder in float32.

    Encoders become sentence embeddings (pooling and normalisation as the folder's
    `modules.json` says, else the mean over tokens), or classifiers where they were saved as
    such; decoders give the logits of the next token; vision models those of their classes.
    Attention runs through torch's `scaled_dot_product_attention`. No code of the folder
    runs, nothing is fetched, weights are read from safetensors only.

    Raises:
        ModelError: The folder or its architecture is unknown, it has no safetensors, weights
            are missing, unreadable or fewer than the config describes, or it asks for code
            of its own.
        MissingPackageError: `transformers` is not installed.
    """
    if not path.is_dir():
        raise ModelError(
            f"Folder {str(path)!r} does not exist. Expected a Hugging Face folder with config.json "
            "and safetensors. Check the path."
        )
    _check_weights(path)
    check_folder(path)
    raw = _json(path / "config.json")
    family = family_of(raw, origin=str(path / "config.json"))
    model = _load(path, raw=raw, family=family)
    names = ("pixel_values",) if family.is_vision else ("input_ids", "attention_mask")
    return LoadedModel(
        module=_wrapped(model, path=path, family=family),
        input_names=names,
        task=family.task,
        example=_example(family, config=model.config),
        root="model.",
        tokenizer_file=_existing(path / "tokenizer.json"),
    )


def _check_weights(path: Path) -> None:
    if any(path.glob("*.safetensors")):
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
    if pickles:
        raise ModelError(
            f"Folder {str(path)!r} holds its weights only as {pickles[0]!r}, a format that can run "
            "code when it is read. Expected safetensors. Convert it with `safetensors` where you "
            "trust the file, and load the result."
        )
    raise ModelError(
        f"Folder {str(path)!r} holds no weights. Expected a file such as model.safetensors. "
        "Download it again."
    )


def _load(path: Path, *, raw: Mapping[str, Any], family: Family) -> Any:  # noqa: ANN401 - transformers is untyped
    try:
        import transformers
    except ImportError as error:
        raise MissingPackageError(
            "A Hugging Face folder needs the package 'transformers'. Expected it beside torch. "
            "Install mpsearch[search]."
        ) from error
    config_class = transformers.CONFIG_MAPPING[family.model_type]
    auto_class = getattr(transformers, family.auto_class)
    own: dict[str, Any] = {"attn_implementation": "sdpa"} if family.has_attention else {}
    if family.has_unused_pooler:
        own["add_pooling_layer"] = False
    try:
        with _quiet(transformers.utils.logging):
            config = config_class(**known_fields(raw, config_class=config_class))
            with meta_device():
                check_parameters(auto_class.from_config(config, **own), place=path)
            model, found = auto_class.from_pretrained(
                path,
                config=config,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
                **own,
            )
    except ModelError:
        raise
    except Exception as error:  # transformers raises whatever its parts raise
        raise ModelError(
            f"Folder {str(path)!r} cannot be loaded as {family.model_type}: "
            f"{type(error).__name__}: {_first_line(error)}. Expected weights that fit its "
            "config.json. Download it again."
        ) from error
    absent = sorted({*found["missing_keys"], *(str(each) for each in found["mismatched_keys"])})
    if absent:
        raise ModelError(
            f"Folder {str(path)!r} lacks {len(absent)} weights of {family.model_type}, first "
            f"{absent[0]!r}. Expected all of them, in the shapes of config.json. Download it again."
        )
    return model.eval()


@contextmanager
def _quiet(settings: Any) -> Iterator[None]:  # noqa: ANN401 - as above
    """Keep bars and reports off the terminal: what matters is checked below."""
    bars, level = settings.is_progress_bar_enabled(), settings.get_verbosity()
    settings.disable_progress_bar()
    settings.set_verbosity_error()
    try:
        yield
    finally:
        settings.set_verbosity(level)
        if bars:
            settings.enable_progress_bar()


def _wrapped(model: nn.Module, *, path: Path, family: Family) -> nn.Module:
    if family.task == "embedding":
        pooling, is_normalised = _sentence_modules(path)
        return SentenceEncoder(model, pooling=pooling, is_normalised=is_normalised).eval()
    if family.task == "causal_lm":
        return CausalLanguageModel(model).eval()
    return (ImageClassifier(model) if family.is_vision else TextClassifier(model)).eval()


def _sentence_modules(path: Path) -> tuple[str, bool]:
    """Return how `modules.json` pools tokens, and whether it normalises."""
    if not (path / "modules.json").exists():
        return "mean", False
    modules = _json(path / "modules.json", kind=list)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    unknown = set(kinds[1:]) - {"Pooling", "Normalize"}
    if kinds[:2] != ["Transformer", "Pooling"] or unknown:
        raise ModelError(
            f"Folder {str(path)!r} chains the modules {kinds}. Expected Transformer, Pooling and "
            "perhaps Normalize. Load it with sentence-transformers and pass the module."
        )
    settings = _json(_inside(path, str(modules[1].get("path", ""))) / "config.json")
    modes = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value]
    known = [_POOLING[mode] for mode in modes if mode in _POOLING]
    named = settings.get("pooling_mode")
    if not modes and named in _POOLING.values():
        known, modes = [str(named)], [str(named)]
    if len(known) != 1 or len(modes) != 1:
        raise ModelError(
            f"Folder {str(path)!r} pools by {modes or named}. Expected the mean or the first "
            "token. Load it with sentence-transformers and pass the module."
        )
    return known[0], "Normalize" in kinds


def _inside(path: Path, part: str) -> Path:
    target = (path / part).resolve()
    if not target.is_relative_to(path.resolve()):
        raise ModelError(
            f"Folder {str(path)!r} refers to {part!r}, outside of it. Expected a subfolder. "
            "Do not use this folder."
        )
    return target


def _example(family: Family, *, config: Any) -> dict[str, Tensor]:  # noqa: ANN401 - as above
    if family.is_vision:
        size = getattr(config, "image_size", None) or _IMAGE_SIZE
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.zeros(2, config.num_channels, height, width)}
    # Different tokens, so that no operator sees a degenerate input.
    ids = torch.arange(2 * _EXAMPLE_LENGTH).reshape(2, -1) % (config.vocab_size - 1) + 1
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _json(path: Path, *, kind: type = dict) -> Any:  # noqa: ANN401 - parsed JSON
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"File {str(path)!r} cannot be read: {error}. Expected JSON of a Hugging Face folder. "
            "Download it again."
        ) from error
    if not isinstance(content, kind):
        raise ModelError(
            f"File {str(path)!r} holds a {type(content).__name__}. Expected a {kind.__name__}. "
            "Download it again."
        )
    return content


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None


def _first_line(error: Exception) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), "")
