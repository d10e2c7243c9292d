"""Every family on the list loads from a folder that transformers saved, and traces."""

from pathlib import Path
from typing import Any, Final

import pytest
import torch
import transformers

from mpsearch.tracing import load_folder, trace_model
from mpsearch.tracing.architectures import KNOWN_TYPES

_SIZES: Final = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
_TEXT: Final = {"vocab_size": 60, "max_position_embeddings": 40, **_SIZES}
_MARKS: Final = {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
_T5: Final = {
    "vocab_size": 60,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 1,
    "num_heads": 2,
}
_TWO_SIDES: Final = {
    "vocab_size": 60,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
_IMAGE: Final = {"image_size": 16, "patch_size": 8, **_SIZES}
_STAGES: Final = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
_WAVES: Final = {
    "vocab_size": 12,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 8),
    "conv_stride": (50, 40),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    **_SIZES,
}
_MASKED, _CAUSAL, _ANSWERS, _IMAGES, _LETTERS = (
    "AutoModelForMaskedLM",
    "AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForImageClassification",
    "AutoModelForCTC",
)
_FAMILIES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "mpnet"), (_MASKED, _TEXT)),
    "distilbert": (
        _MASKED,
        {"vocab_size": 60, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48},
    ),
    "electra": (_MASKED, {**_TEXT, "embedding_size": 32}),
    "albert": (_MASKED, {**_TEXT, "embedding_size": 16}),
    "deberta-v2": (_MASKED, _TEXT),
    "modernbert": (_MASKED, {**_TEXT, **_MARKS}),
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gpt_neox", "phi"),
        (_CAUSAL, {**_TEXT, "num_key_value_heads": 2}),
    ),
    "gpt2": (_CAUSAL, {"vocab_size": 60, "n_embd": 32, "n_layer": 1, "n_head": 2}),
    "opt": (_CAUSAL, {**_TEXT, "word_embed_proj_dim": 32, "ffn_dim": 48}),
    **dict.fromkeys(("t5", "mt5"), (_ANSWERS, {**_T5, "decoder_start_token_id": 0})),
    **dict.fromkeys(
        ("bart", "mbart", "marian", "pegasus"),
        (_ANSWERS, {**_TWO_SIDES, "max_position_embeddings": 40}),
    ),
    **dict.fromkeys(("vit", "deit", "dinov2"), (_IMAGES, _IMAGE)),
    "resnet": (_IMAGES, _STAGES),
    "regnet": (_IMAGES, {**_STAGES, "groups_width": 8}),
    "convnext": (_IMAGES, {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}),
    "swin": (
        _IMAGES,
        {"image_size": 32, "embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 4},
    ),
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm"), (_LETTERS, _WAVES)),
    "whisper": (
        "AutoModelForSpeechSeq2Seq",
        {**_TWO_SIDES, "num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 40},
    ),
}


def test_every_type_on_the_list_is_tried_below() -> None:
    assert set(_FAMILIES) == KNOWN_TYPES


@pytest.mark.slow
@pytest.mark.parametrize("kind", _FAMILIES)
def test_a_family_loads_and_traces(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    auto_class, fields = _FAMILIES[kind]
    config = transformers.AutoConfig.for_model(kind, **fields)
    # Where several classes could be meant, transformers looks for names in what may be None.
    config.architectures = config.architectures or []
    getattr(transformers, auto_class).from_config(config).save_pretrained(tmp_path)
    loaded = load_folder(tmp_path)
    traced = trace_model(loaded.module, loaded.example, root=loaded.root)
    batch = {name: torch.cat([value, value[:1]]) for name, value in loaded.example.items()}
    with torch.no_grad():
        torch.testing.assert_close(traced.module(**batch), loaded.module(**batch))
