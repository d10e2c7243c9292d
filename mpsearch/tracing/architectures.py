"""Which architectures of transformers are read, and which fields of their configs count."""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, final

from mpsearch.errors import ModelError

_LOG = logging.getLogger("mpsearch.tracing")

# What goes in: tokens; pixels; sound as it was sampled; sound as a spectrogram.
Medium: TypeAlias = Literal["tokens", "pixels", "waves", "spectrograms"]


@final
@dataclass(frozen=True, kw_only=True)
class Family:
    """How models of one type are loaded, fed and judged.

    `has_decoder` says that a decoder reads what was encoded, and tokens of its own.
    """

    model_type: str
    auto_class: str
    task: str
    reads: Medium
    has_decoder: bool = False
    has_attention: bool = True
    has_unused_pooler: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class _Head:
    """What a model saved with one of these endings in `architectures` is for."""

    endings: tuple[str, ...]
    auto_class: str
    task: str
    has_decoder: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class _Kind:
    """Model types that are fed alike; the last head is that of a folder that names none."""

    types: frozenset[str]
    reads: Medium
    heads: tuple[_Head, ...]


_CLASSIFIED: Final = ("ForSequenceClassification", "ForAudioClassification")
_KINDS: Final = (
    _Kind(
        types=frozenset(
            {
                *("bert", "roberta", "xlm-roberta", "distilbert", "electra", "mpnet"),
                *("albert", "camembert", "deberta-v2", "modernbert"),
            }
        ),
        reads="tokens",
        heads=(
            _Head(endings=("ForMaskedLM",), auto_class="AutoModelForMaskedLM", task="masked_lm"),
            _Head(
                endings=_CLASSIFIED,
                auto_class="AutoModelForSequenceClassification",
                task="classification",
            ),
            _Head(endings=("Model", "ForPreTraining"), auto_class="AutoModel", task="embedding"),
        ),
    ),
    _Kind(
        types=frozenset({"gpt2", "llama", "mistral", "qwen2", "qwen3", "opt", "gpt_neox", "phi"}),
        reads="tokens",
        heads=(
            _Head(
                endings=("ForCausalLM", "LMHeadModel", "Model"),
                auto_class="AutoModelForCausalLM",
                task="causal_lm",
            ),
        ),
    ),
    _Kind(
        types=frozenset({"t5", "mt5", "bart", "mbart", "marian", "pegasus"}),
        reads="tokens",
        heads=(
            _Head(
                endings=("ForConditionalGeneration", "MTModel"),
                auto_class="AutoModelForSeq2SeqLM",
                task="seq2seq_lm",
                has_decoder=True,
            ),
        ),
    ),
    _Kind(
        types=frozenset({"vit", "deit", "resnet", "convnext", "dinov2", "swin", "regnet"}),
        reads="pixels",
        heads=(
            _Head(
                endings=("ForImageClassification", "ForImageClassificationWithTeacher"),
                auto_class="AutoModelForImageClassification",
                task="classification",
            ),
        ),
    ),
    _Kind(
        types=frozenset({"wav2vec2", "hubert", "wavlm"}),
        reads="waves",
        heads=(
            _Head(endings=("ForCTC",), auto_class="AutoModelForCTC", task="ctc"),
            _Head(
                endings=_CLASSIFIED,
                auto_class="AutoModelForAudioClassification",
                task="classification",
            ),
            _Head(endings=("Model", "ForPreTraining"), auto_class="AutoModel", task="embedding"),
        ),
    ),
    _Kind(
        types=frozenset({"whisper"}),
        reads="spectrograms",
        heads=(
            _Head(
                endings=_CLASSIFIED,
                auto_class="AutoModelForAudioClassification",
                task="classification",
            ),
            _Head(endings=("Model", "Encoder"), auto_class="AutoModel", task="embedding"),
            _Head(
                endings=("ForConditionalGeneration",),
                auto_class="AutoModelForSpeechSeq2Seq",
                task="seq2seq_lm",
                has_decoder=True,
            ),
        ),
    ),
)
KNOWN_TYPES: Final = frozenset(name for kind in _KINDS for name in kind.types)
_WITH_POOLER: Final = frozenset({"bert", "roberta", "xlm-roberta", "mpnet", "camembert", "albert"})
_WITHOUT_ATTENTION: Final = frozenset(
    {"resnet", "convnext", "regnet", "swin", "mpnet", "deberta-v2", "wavlm"}
)

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


def family_of(config: Mapping[str, Any], *, origin: str, is_sentence: bool = False) -> Family:
    """Return how to load a model by its `model_type` and the head in `architectures`.

    A folder that is a sentence encoder is one whatever head its weights once had.

    Raises:
        ModelError: Type or head are not known, or a field asks for what is never done.
    """
    check_plain(config, origin=origin)
    model_type = str(config.get("model_type", ""))
    kind = next((kind for kind in _KINDS if model_type in kind.types), None)
    if kind is None:
        known = sorted(KNOWN_TYPES)
        raise ModelError(
            f"Config {origin!r} is of type {model_type!r}{nearest(model_type, known)}. Expected "
            f"one of {', '.join(known)}. Load it with its own library and pass the module."
        )
    saved_as = "" if is_sentence else str((config.get("architectures") or [""])[0])
    head = _head_of(kind, saved_as=saved_as, origin=origin)
    return Family(
        model_type=model_type,
        auto_class=head.auto_class,
        task=head.task,
        reads=kind.reads,
        has_decoder=head.has_decoder,
        has_attention=model_type not in _WITHOUT_ATTENTION,
        has_unused_pooler=head.auto_class == "AutoModel" and model_type in _WITH_POOLER,
    )


def check_plain(config: Mapping[str, Any], *, origin: str) -> None:
    """Refuse a config that asks for code of its folder, or for weights that are no floats.

    Raises:
        ModelError: It does.
    """
    for field, reason in _REFUSED.items():
        if config.get(field):
            raise ModelError(
                f"Config {origin!r} {reason} ({field!r}). Expected a plain model of floats. "
                "Load it where you trust it, and pass the float32 module."
            )


def nearest(name: str, known: list[str]) -> str:
    """Return words that name what was perhaps meant; none where nothing is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", nearest to {close[0]!r}" if close else ""


def _head_of(kind: _Kind, *, saved_as: str, origin: str) -> _Head:
    if not saved_as:
        return kind.heads[-1]
    found = next((head for head in kind.heads if saved_as.endswith(head.endings)), None)
    if found is None:
        known = [ending for head in kind.heads for ending in head.endings]
        raise ModelError(
            f"Config {origin!r} was saved as {saved_as!r}{nearest(saved_as, known)}. Expected a "
            f"name that ends with one of {', '.join(known)}. Load it with transformers and pass "
            "the module, with a task."
        )
    return found


def known_fields(raw: Mapping[str, Any], *, config_class: Any) -> dict[str, Any]:  # noqa: ANN401 - transformers is untyped
    """Return the fields that the architecture's own config has, less those that we fix."""
    allowed = set(config_class().to_dict()) | {"id2label", "label2id", "num_labels"}
    kept = {key: value for key, value in raw.items() if key in allowed - _OURS}
    ignored = sorted(set(raw) - set(kept) - _OURS - {"model_type"})
    if ignored:
        _LOG.info("Fields of config.json that its architecture does not have: %s.", ignored)
    kept.pop("model_type", None)
    return kept
