"""A Hugging Face folder to a module: safetensors only, known architectures, offline."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from torch import Tensor, nn

from mpsearch.errors import ModelError
from mpsearch.tracing.architectures import Family, family_of
from mpsearch.tracing.feeding import (
    SENTENCE,
    decoder_start,
    example_inputs,
    fold_parametrizations_,
    input_names,
    task_settings,
    wrapped,
)
from mpsearch.tracing.folder_files import CONFIG, check_weights, read_json
from mpsearch.tracing.plausible import check_folder
from mpsearch.tracing.weights import imported_transformers, load_weights


@final
@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A module with all that is needed to feed and trace it; `root` as in `trace_model`.

    `decoder_start` is the token that the answers of an encoder-decoder begin with,
    `task_settings` are fields of the task that the model's config decides.
    """

    module: nn.Module
    input_names: tuple[str, ...]
    task: str
    example: Mapping[str, Tensor]
    root: str
    tokenizer_file: Path | None = None
    decoder_start: int | None = None
    task_settings: Mapping[str, int] = field(default_factory=dict)


def load_folder(path: Path) -> LoadedModel:
    """Load a transformers or sentence-transformers folder in float32.

    The head is that of `architectures` in the config. Encoders of text become sentence
    embeddings (pooling and normalisation as the folder's `modules.json` says, else the mean
    over tokens), classifiers or masked language models; decoders give the logits of the next
    token, encoder-decoders those of an answer that is given to them; vision models the logits
    of their classes; models of speech embeddings, classes, letters or an answer. Attention
    runs through torch's `scaled_dot_product_attention` where the architecture has it. No code
    of the folder runs, nothing is fetched, weights are read from safetensors only.

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
    check_weights(path)
    check_folder(path)
    raw = read_json(path / CONFIG)
    is_sentence = (path / SENTENCE).exists()
    family = family_of(raw, origin=str(path / CONFIG), is_sentence=is_sentence)
    model = _load(path, raw=raw, family=family)
    fold_parametrizations_(model)
    return LoadedModel(
        module=wrapped(model, path=path, family=family),
        input_names=input_names(family),
        task=family.task,
        example=example_inputs(family, config=model.config),
        root="model.",
        tokenizer_file=_existing(path / "tokenizer.json"),
        decoder_start=decoder_start(path) if family.has_decoder else None,
        task_settings=task_settings(family, config=model.config),
    )


def _load(path: Path, *, raw: Mapping[str, Any], family: Family) -> Any:  # noqa: ANN401 - transformers is untyped
    transformers = imported_transformers()
    own: dict[str, Any] = {"attn_implementation": "sdpa"} if family.has_attention else {}
    if family.has_unused_pooler:
        own["add_pooling_layer"] = False
    return load_weights(
        path,
        raw=raw,
        model_class=getattr(transformers, family.auto_class),
        config_class=transformers.CONFIG_MAPPING[family.model_type],
        options=own,
    )


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
