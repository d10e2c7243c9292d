"""Which architectures of transformers are read, and which fields of their configs count."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from mpsearch.errors import ModelError

_LOG = logging.getLogger("mpsearch.tracing")


@final
@dataclass(frozen=True, kw_only=True)
class Family:
    """How models of one type are loaded, fed and judged."""

    model_type: str
    auto_class: str
    task: str
    is_vision: bool = False
    has_attention: bool = True
    has_unused_pooler: bool = False


_ENCODERS: Final = frozenset({"bert", "roberta", "xlm-roberta", "distilbert", "electra", "mpnet"})
_WITH_POOLER: Final = frozenset({"bert", "roberta", "xlm-roberta", "mpnet"})
_DECODERS: Final = frozenset({"gpt2", "llama", "mistral", "qwen2", "qwen3", "opt"})
_VISION: Final = frozenset({"vit", "deit", "resnet", "convnext"})
_WITHOUT_ATTENTION: Final = frozenset({"resnet", "convnext", "mpnet"})

# They ask for code of the folder, or say that the weights are no floats.
_REFUSED: Final = {
    "auto_map": "asks for code of its own",
    "custom_pipelines": "asks for code of its own",
    "quantization_config": "says that its weights are quantised already",
}
# They choose how transformers runs or reports, which is ours to fix.
_OURS: Final = frozenset(
    {
        "_name_or_path", "architectures", "attn_implementation", "chunk_size_feed_forward",
        "dtype", "experts_implementation", "output_attentions", "output_hidden_states",
        "return_dict", "torch_dtype", "torchscript", "transformers_version", "use_cache",
    }
)  # fmt: skip


def family_of(config: Mapping[str, Any], *, origin: str) -> Family:
    """Return how to load a model by its `model_type` and `architectures`.

    Raises:
        ModelError: The type is not known, or a field asks for what is never done.
    """
    for field, reason in _REFUSED.items():
        if config.get(field):
            raise ModelError(
                f"Config {origin!r} {reason} ({field!r}). Expected a plain model of transformers. "
                "Load it where you trust it, and pass the float32 module."
            )
    model_type = str(config.get("model_type", ""))
    saved_as = str((config.get("architectures") or [""])[0])
    if model_type in _VISION:
        return Family(
            model_type=model_type,
            auto_class="AutoModelForImageClassification",
            task="classification",
            is_vision=True,
            has_attention=model_type not in _WITHOUT_ATTENTION,
        )
    if model_type in _DECODERS:
        return Family(model_type=model_type, auto_class="AutoModelForCausalLM", task="causal_lm")
    if model_type not in _ENCODERS:
        known = ", ".join(sorted(_ENCODERS | _DECODERS | _VISION))
        raise ModelError(
            f"Config {origin!r} is of type {model_type!r}. Expected one of {known}. "
            "Load it with its own library and pass the module."
        )
    has_attention = model_type not in _WITHOUT_ATTENTION
    if saved_as.endswith("ForSequenceClassification"):
        return Family(
            model_type=model_type,
            auto_class="AutoModelForSequenceClassification",
            task="classification",
            has_attention=has_attention,
        )
    return Family(
        model_type=model_type,
        auto_class="AutoModel",
        task="embedding",
        has_attention=has_attention,
        has_unused_pooler=model_type in _WITH_POOLER,
    )


def known_fields(raw: Mapping[str, Any], *, config_class: Any) -> dict[str, Any]:  # noqa: ANN401 - transformers is untyped
    """Return the fields that the architecture's own config has, less those that we fix."""
    allowed = set(config_class().to_dict()) | {"id2label", "label2id", "num_labels"}
    kept = {key: value for key, value in raw.items() if key in allowed - _OURS}
    ignored = sorted(set(raw) - set(kept) - _OURS - {"model_type"})
    if ignored:
        _LOG.info("Fields of config.json that its architecture does not have: %s.", ignored)
    kept.pop("model_type", None)
    return kept
