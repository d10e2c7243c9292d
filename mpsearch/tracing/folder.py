"""A Hugging Face folder to a module: safetensors only, known architectures, offline."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from mpsearch.errors import MissingPackageError, ModelError
from mpsearch.tracing.architectures import Family, family_of, known_fields
from mpsearch.tracing.feeding import (
    SENTENCE,
    decoder_start,
    example_inputs,
    fold_parametrizations_,
    input_names,
    task_settings,
    wrapped,
)
from mpsearch.tracing.folder_files import CONFIG, check_weights, first_line, read_json
from mpsearch.tracing.plausible import check_folder, check_parameters, meta_device


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
            f"{type(error).__name__}: {first_line(error)}. Expected weights that fit its "
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


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
