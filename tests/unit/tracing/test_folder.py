"""Folders of transformers load by name, offline, and never run what they bring along."""

import json
import time
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from mpsearch.errors import ModelError
from mpsearch.tracing import load_folder, trace_model

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
_TEXT = {"vocab_size": 60, "max_position_embeddings": 40, **_SIZES}
_DISTILBERT = {"vocab_size": 60, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48}
_GPT2 = {"vocab_size": 60, "n_positions": 40, "n_embd": 32, "n_layer": 1, "n_head": 2}
_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}


def _saved(auto_class: str, kind: str, *, folder: Path, **fields: object) -> nn.Module:
    """Write a random model of a type to a folder and return it."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **fields)
    model = getattr(transformers, auto_class).from_config(config)
    model.save_pretrained(folder)
    assert isinstance(model, nn.Module)
    return model.eval()


def _sentence_folder(folder: Path, *, mode: str = "pooling_mode_mean_tokens") -> Path:
    _saved("AutoModel", "bert", folder=folder, **_TEXT)
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({mode: True}))
    return folder


def test_a_sentence_folder_gives_pooled_vectors_of_unit_length(tmp_path: Path) -> None:
    folder = _sentence_folder(tmp_path)
    loaded = load_folder(folder)
    plain = transformers.AutoModel.from_pretrained(folder)
    ids = loaded.example["input_ids"]
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    with torch.no_grad():
        hidden = plain(input_ids=ids, attention_mask=mask).last_hidden_state
        found = loaded.module(input_ids=ids, attention_mask=mask)
    wanted = torch.stack([hidden[0].mean(0), hidden[1, :7].mean(0)])
    torch.testing.assert_close(found, wanted / wanted.norm(dim=1, keepdim=True))
    assert (loaded.task, loaded.root) == ("embedding", "model.")


def test_pooling_by_the_first_token(tmp_path: Path) -> None:
    loaded = load_folder(_sentence_folder(tmp_path, mode="pooling_mode_cls_token"))
    with torch.no_grad():
        hidden = loaded.module.model(**loaded.example).last_hidden_state  # type: ignore[operator]  # a module of the wrapper
        found = loaded.module(**loaded.example)
    torch.testing.assert_close(found, torch.nn.functional.normalize(hidden[:, 0], dim=1))


_CAUSAL, _IMAGES, _TEXTS = (
    "AutoModelForCausalLM",
    "AutoModelForImageClassification",
    "AutoModelForSequenceClassification",
)
_MASKED, _ANSWERS, _SPOKEN, _LETTERS, _SOUNDS = (
    "AutoModelForMaskedLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSpeechSeq2Seq",
    "AutoModelForCTC",
    "AutoModelForAudioClassification",
)
_TASKS = {
    _CAUSAL: "causal_lm",
    _MASKED: "masked_lm",
    _ANSWERS: "seq2seq_lm",
    _SPOKEN: "seq2seq_lm",
    _LETTERS: "ctc",
}
_T5 = {
    "vocab_size": 60,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
_TWO_SIDES = {
    "vocab_size": 60,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 40,
}
_WHISPER = {
    **{key: value for key, value in _TWO_SIDES.items() if key != "max_position_embeddings"},
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "max_target_positions": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
_WAVES = {
    "vocab_size": 12,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 8),
    "conv_stride": (50, 40),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    **_SIZES,
}


@pytest.mark.parametrize(
    ("kind", "auto_class", "fields", "layer", "count"),
    [
        ("gpt2", _CAUSAL, _GPT2, "transformer.h.0.attn.c_attn", 7),
        ("llama", _CAUSAL, {**_TEXT, "num_key_value_heads": 1}, "lm_head", 9),
        ("vit", _IMAGES, {"image_size": 16, "patch_size": 8, **_SIZES}, "classifier", 8),
        ("resnet", _IMAGES, _RESNET, "classifier.1", 7),
        ("bert", _TEXTS, _TEXT, "bert.encoder.layer.0.attention.self.query", 11),
        ("bert", _MASKED, _TEXT, "cls.predictions.decoder", 11),
        ("roberta", _MASKED, _TEXT, "lm_head.decoder", 11),
        ("distilbert", _MASKED, _DISTILBERT, "vocab_projector", 10),
        ("t5", _ANSWERS, _T5, "decoder.block.0.layer.1.EncDecAttention.q", 21),
        ("bart", _ANSWERS, _TWO_SIDES, "model.decoder.layers.0.encoder_attn.q_proj", 21),
        ("whisper", _SPOKEN, _WHISPER, "model.encoder.conv1", 20),
        ("whisper", _SOUNDS, _WHISPER, "classifier", 10),
        ("wav2vec2", _LETTERS, _WAVES, "wav2vec2.encoder.pos_conv_embed.conv", 11),
        ("hubert", _SOUNDS, _WAVES, "classifier", 12),
    ],
)
def test_families_load_and_trace_under_their_own_names(
    tmp_path: Path,
    *,
    kind: str,
    auto_class: str,
    fields: dict[str, object],
    layer: str,
    count: int,
) -> None:
    model = _saved(auto_class, kind, folder=tmp_path, **fields)
    loaded = load_folder(tmp_path)
    assert loaded.task == _TASKS.get(auto_class, "classification")
    assert tuple(loaded.example) == loaded.input_names
    with torch.no_grad():
        wanted: Tensor = model(**loaded.example).logits
        torch.testing.assert_close(loaded.module(**loaded.example), wanted)
    traced = trace_model(loaded.module, loaded.example, root=loaded.root)
    assert layer in traced.graph.names
    assert len(traced.graph.layers) == count
    batch = {name: torch.cat([value, value[:1]]) for name, value in loaded.example.items()}
    with torch.no_grad():
        torch.testing.assert_close(traced.module(**batch), loaded.module(**batch))


def test_linear_layers_of_gpt2_stand_transposed_and_are_counted_alike(tmp_path: Path) -> None:
    _saved(_CAUSAL, "gpt2", folder=tmp_path, **_GPT2)
    loaded = load_folder(tmp_path)
    graph = trace_model(loaded.module, loaded.example, root=loaded.root).graph
    assert graph.layers[graph.index("transformer.h.0.attn.c_attn")].weight_shape == (96, 32)
    # The head is tied to the token embedding.
    (tied,) = graph.shared_weights
    assert {graph.names[place] for place in tied} == {"transformer.wte", "lm_head"}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / name).write_bytes(b"never read")
    with pytest.raises(ModelError, match=f"only as '{name}'.*Expected safetensors"):
        load_folder(tmp_path)


def test_missing_folders_and_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="holds no weights"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "evil"}, "is of type 'evil'"),
        ({"model_type": "rober"}, "is of type 'rober', nearest to 'roberta'"),
        ({"model_type": None}, "is of type"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "asks for code of its own"),
        ({"quantization_config": {"bits": 4}}, "quantised already"),
        ({"hidden_size": 64}, "lacks .* weights|cannot be loaded"),
        ({"num_hidden_layers": 2}, "lacks .* weights"),
        ({"num_hidden_layers": 2**40}, r"num_hidden_layers = 1\.1e\+12.*at most 1000"),
        ({"num_hidden_layers": 999}, "999, and the weights are .. tensors"),
        ({"hidden_size": 2**20, "num_attention_heads": 1}, "describes .* parameters"),
        ({"vocab_size": 2**27}, "describes .* parameters"),
        ({"max_position_embeddings": 2**28}, "describes .* parameters"),
    ],
)
def test_configs_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = _sentence_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=message):
        load_folder(folder)


def test_the_head_is_that_of_architectures_unless_the_folder_is_a_sentence_encoder(
    tmp_path: Path,
) -> None:
    _saved(_MASKED, "bert", folder=tmp_path, **_TEXT)
    assert load_folder(tmp_path).task == "masked_lm"
    (tmp_path / "modules.json").write_text(
        json.dumps([{"path": "", "type": f"x.{kind}"} for kind in ("Transformer", "Pooling")])
    )
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pooling_mode": "mean"}))
    assert load_folder(tmp_path).task == "embedding"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BertForMaskedLMs", r"saved as 'BertForMaskedLMs', nearest to 'ForMaskedLM'"),
        ("BertForQuestionAnswering", r"Expected a name that ends with one of ForMaskedLM, "),
    ],
)
def test_heads_that_are_not_known_are_refused(tmp_path: Path, name: str, message: str) -> None:
    _saved("AutoModel", "bert", folder=tmp_path, **_TEXT)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": [name]}))
    with pytest.raises(ModelError, match=message):
        load_folder(tmp_path)


def test_a_normalised_convolution_is_one_layer_after_folding(tmp_path: Path) -> None:
    """Weight normalisation computes a weight in each pass: the layer has it as it comes out."""
    _saved(_LETTERS, "wav2vec2", folder=tmp_path, **_WAVES)
    loaded = load_folder(tmp_path)
    graph = trace_model(loaded.module, loaded.example, root=loaded.root).graph
    layer = graph.layers[graph.index("wav2vec2.encoder.pos_conv_embed.conv")]
    assert layer.weight_shape == (32, 16, 4)
    assert loaded.task_settings == {"blank": 0}


def test_an_answer_is_never_seen_before_it_is_predicted(tmp_path: Path) -> None:
    """Teacher forcing: a token changes no logits left of it."""
    _saved(_ANSWERS, "t5", folder=tmp_path, **_T5)
    loaded = load_folder(tmp_path)
    assert loaded.decoder_start == 0
    changed = loaded.example["decoder_input_ids"].clone()
    changed[:, 5] += 1
    with torch.no_grad():
        before = loaded.module(**loaded.example)
        after = loaded.module(**{**loaded.example, "decoder_input_ids": changed})
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize(
    ("kind", "auto_class", "fields", "change"),
    [
        ("gpt2", _CAUSAL, _GPT2, {"n_layer": 10**6}),
        ("gpt2", _CAUSAL, _GPT2, {"n_layer": 900}),
        ("gpt2", _CAUSAL, _GPT2, {"n_layer": 10**400}),
        ("gpt2", _CAUSAL, _GPT2, {"n_embd": 2**24}),
        ("llama", _CAUSAL, _TEXT, {"num_hidden_layers": 10**7}),
        ("llama", _CAUSAL, _TEXT, {"intermediate_size": 2**27}),
        ("resnet", _IMAGES, _RESNET, {"depths": [10**6, 1]}),
        ("resnet", _IMAGES, _RESNET, {"hidden_sizes": [2**27, 2**27]}),
        ("resnet", _IMAGES, _RESNET, {"image_size": 2**20}),
        ("t5", _ANSWERS, _T5, {"num_layers": 900}),
        ("t5", _ANSWERS, _T5, {"num_decoder_layers": 900}),
        ("t5", _ANSWERS, _T5, {"d_ff": 2**27}),
        ("bart", _ANSWERS, _TWO_SIDES, {"decoder_layers": 900}),
        ("whisper", _SPOKEN, _WHISPER, {"max_source_positions": 2**27}),
        ("whisper", _SPOKEN, _WHISPER, {"num_mel_bins": 2**27}),
        ("wav2vec2", _LETTERS, _WAVES, {"conv_kernel": [2**27, 8]}),
        ("wav2vec2", _LETTERS, _WAVES, {"num_conv_pos_embeddings": 2**27}),
    ],
)
def test_sizes_beyond_the_weights_are_refused_at_once(
    tmp_path: Path,
    *,
    kind: str,
    auto_class: str,
    fields: dict[str, object],
    change: dict[str, object],
) -> None:
    _saved(auto_class, kind, folder=tmp_path, **fields)
    load_folder(tmp_path)  # what transformers imports first takes its time once
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    start = time.process_time()
    with pytest.raises(ModelError, match=r"config\.json .* Expected at "):
        load_folder(tmp_path)
    assert time.process_time() - start < 1


def test_damaged_weights_are_told(tmp_path: Path) -> None:
    folder = _sentence_folder(tmp_path)
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match=r"cannot be read: .*header"):
        load_folder(folder)


def test_modules_outside_the_folder_are_refused(tmp_path: Path) -> None:
    folder = _sentence_folder(tmp_path / "inner")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../../elsewhere"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="outside of it"):
        load_folder(folder)


def test_unknown_pooling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pools by"):
        load_folder(_sentence_folder(tmp_path, mode="pooling_mode_max_tokens"))


def test_fields_outside_the_architecture_are_ignored(tmp_path: Path) -> None:
    folder = _sentence_folder(tmp_path)
    reference = load_folder(folder)
    config = json.loads((folder / "config.json").read_text())
    extra = {"attn_implementation": "eager", "output_attentions": True, "run_me": "code"}
    (folder / "config.json").write_text(json.dumps(config | extra))
    again = load_folder(folder)
    assert torch.equal(again.module(**again.example), reference.module(**reference.example))
