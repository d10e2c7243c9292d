"""What a family of transformers takes and gives: names of inputs, an example, a wrapper."""

from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpsearch.errors import ModelError
from mpsearch.tracing.architectures import Family, Medium
from mpsearch.tracing.folder_files import CONFIG, inside, read_json
from mpsearch.tracing.wrappers import (
    CausalLanguageModel,
    ImageClassifier,
    SentenceEncoder,
    SpectrogramEncoder,
    SpectrogramLogits,
    SpeechToText,
    TextLogits,
    TextToText,
    WaveEncoder,
    WaveLogits,
)

SENTENCE: Final = "modules.json"
_EXAMPLE_LENGTH: Final = 16  # longer than the window of no known model, short enough to be cheap
_IMAGE_SIZE: Final = 224  # of ImageNet models whose config names no size
_WAVE_SECONDS: Final = 1
_SAMPLES_PER_SECOND: Final = 16_000  # what models of speech are trained at
# Whisper halves the frames of a spectrogram before the positions that it knows.
_FRAMES_PER_POSITION: Final = 2
_INPUTS: Final[dict[Medium, tuple[str, ...]]] = {
    "tokens": ("input_ids", "attention_mask"),
    "pixels": ("pixel_values",),
    "waves": ("input_values",),
    "spectrograms": ("input_features",),
}
_DECODER_IDS: Final = "decoder_input_ids"
_POOLING: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}


def input_names(family: Family) -> tuple[str, ...]:
    """Return the names of a family's inputs."""
    return (*_INPUTS[family.reads], *((_DECODER_IDS,) if family.has_decoder else ()))


def example_inputs(family: Family, *, config: Any) -> dict[str, Tensor]:  # noqa: ANN401 - transformers is untyped
    """Return two samples in the shapes that the config asks for."""
    inputs: dict[str, Tensor] = {}
    if family.reads == "tokens":
        inputs["input_ids"] = _ids(config)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    elif family.reads == "pixels":
        size = getattr(config, "image_size", None) or _IMAGE_SIZE
        height, width = (size, size) if isinstance(size, int) else size
        inputs["pixel_values"] = torch.zeros(2, config.num_channels, height, width)
    elif family.reads == "waves":
        inputs["input_values"] = torch.linspace(
            -1, 1, 2 * _WAVE_SECONDS * _SAMPLES_PER_SECOND
        ).reshape(2, -1)
    else:
        frames = _FRAMES_PER_POSITION * config.max_source_positions
        inputs["input_features"] = torch.zeros(2, config.num_mel_bins, frames)
    if family.has_decoder:
        # A copy: torch.export watches what a view is a view of.
        inputs[_DECODER_IDS] = _ids(config)[:, : _EXAMPLE_LENGTH // 2].clone()
    return inputs


def wrapped(model: Any, *, family: Family, path: Path) -> nn.Module:  # noqa: ANN401 - as above
    """Return a module that takes the family's inputs and gives the one tensor that counts.

    Raises:
        ModelError: A sentence encoder chains modules that are not known.
    """
    if family.task == "embedding":
        return _encoder(model, family=family, path=path).eval()
    if family.has_decoder:
        return (TextToText if family.reads == "tokens" else SpeechToText)(model).eval()
    if family.task == "causal_lm":
        return CausalLanguageModel(model).eval()
    with_logits = {
        "tokens": TextLogits,
        "pixels": ImageClassifier,
        "waves": WaveLogits,
        "spectrograms": SpectrogramLogits,
    }
    return with_logits[family.reads](model).eval()


def fold_parametrizations_(model: nn.Module) -> None:
    """Store weights that each pass computes anew, as weight normalisation does, as they are."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]  # a ModuleDict, which iterates over names
                parametrize.remove_parametrizations(module, name)


def task_settings(family: Family, *, config: Any) -> dict[str, int]:  # noqa: ANN401 - as above
    """Return what the config says about how the family's task is judged."""
    blank = getattr(config, "pad_token_id", None)
    return {"blank": blank} if family.task == "ctc" and isinstance(blank, int) else {}


def decoder_start(path: Path) -> int | None:
    """Return the token that the folder says an answer begins with, if it says so."""
    for name in ("generation_config.json", CONFIG):
        fields = read_json(path / name) if (path / name).is_file() else {}
        for field in ("decoder_start_token_id", "pad_token_id"):
            if name == CONFIG or field == "decoder_start_token_id":
                token = fields.get(field)
                if isinstance(token, int):
                    return token
    return None


def _ids(config: Any) -> Tensor:  # noqa: ANN401 - as above
    # Different tokens, so that no operator sees a degenerate input.
    words: int = config.vocab_size
    return torch.arange(2 * _EXAMPLE_LENGTH).reshape(2, -1) % (words - 1) + 1


def _encoder(model: Any, *, family: Family, path: Path) -> nn.Module:  # noqa: ANN401 - as above
    if family.reads == "tokens":
        pooling, is_normalised = _sentence_modules(path)
        return SentenceEncoder(model, pooling=pooling, is_normalised=is_normalised)
    if family.reads == "waves":
        return WaveEncoder(model)
    return SpectrogramEncoder(model.get_encoder())


def _sentence_modules(path: Path) -> tuple[str, bool]:
    """Return how `modules.json` pools tokens, and whether it normalises."""
    if not (path / SENTENCE).exists():
        return "mean", False
    modules = read_json(path / SENTENCE, kind=list)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    unknown = set(kinds[1:]) - {"Pooling", "Normalize"}
    if kinds[:2] != ["Transformer", "Pooling"] or unknown:
        raise ModelError(
            f"Folder {str(path)!r} chains the modules {kinds}. Expected Transformer, Pooling and "
            "perhaps Normalize. Load it with sentence-transformers and pass the module."
        )
    settings = read_json(inside(path, str(modules[1].get("path", ""))) / CONFIG)
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
