"""Small models with random weights, exported here by both of torch's exporters."""

import copy
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn


@final
@dataclass(frozen=True, kw_only=True)
class Example:
    """A module, its inputs by name in order, and which of their sizes vary."""

    module: nn.Module
    inputs: Mapping[str, Tensor]
    free: Mapping[str, Mapping[int, str]]


class _Named(nn.Module):
    """Calls a model by names, and returns one tensor of its output."""

    def __init__(self, model: Any, *, names: tuple[str, ...], output: str, **fixed: Any) -> None:  # noqa: ANN401 - models are untyped
        super().__init__()
        self.model = model
        self.names = names
        self.output = output
        self.fixed = fixed

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output by its name."""
        result = self.model(**dict(zip(self.names, inputs, strict=True)), **self.fixed)
        found: Tensor = result[self.output]
        return found


_TOKENS: Final = {
    "input_ids": {0: "batch", 1: "length"},
    "attention_mask": {0: "batch", 1: "length"},
}
_PIXELS: Final = {"pixel_values": {0: "batch"}}


def _wrapped(
    model: Any,  # noqa: ANN401 - models are untyped
    *,
    inputs: Mapping[str, Tensor],
    output: str,
    free: Mapping[str, Mapping[int, str]],
    **fixed: Any,  # noqa: ANN401 - as above
) -> Example:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        # Exporters store equal tensors once, such as biases that are all zero at first.
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    module = _Named(model.eval(), names=tuple(inputs), output=output, **fixed).eval()
    return Example(module=module, inputs=inputs, free=free)


def _text() -> dict[str, Tensor]:
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _bert() -> Example:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        vocab_size=99, max_position_embeddings=40,
    )  # fmt: skip
    return _wrapped(BertModel(config), inputs=_text(), output="last_hidden_state", free=_TOKENS)


def _gpt2() -> Example:
    from transformers import GPT2Config, GPT2LMHeadModel

    # The exporter on tracing stores tied weights twice, which halves their gradients.
    config = GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=99, n_positions=40, tie_word_embeddings=False
    )
    model = GPT2LMHeadModel(config)
    return _wrapped(model, inputs=_text(), output="logits", free=_TOKENS, use_cache=False)


def _llama() -> Example:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=99, max_position_embeddings=40,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    return _wrapped(model, inputs=_text(), output="logits", free=_TOKENS, use_cache=False)


def _vit() -> Example:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        image_size=32, patch_size=8,
    )  # fmt: skip
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32)}
    return _wrapped(ViTForImageClassification(config), inputs=inputs, output="logits", free=_PIXELS)


def _clip() -> Example:
    from transformers import CLIPConfig, CLIPModel

    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 99, "max_position_embeddings": 20,
        "eos_token_id": 2, "bos_token_id": 1,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    inputs = {**_text(), "pixel_values": torch.randn(2, 3, 32, 32)}
    free = {**_TOKENS, **_PIXELS}
    return _wrapped(model, inputs=inputs, output="logits_per_image", free=free)


def _whisper() -> Example:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=64,
        num_mel_bins=16, max_source_positions=20,
    )  # fmt: skip
    inputs = {"input_features": torch.randn(2, 16, 40)}
    free = {"input_features": {0: "batch"}}
    return _wrapped(WhisperEncoder(config), inputs=inputs, output="last_hidden_state", free=free)


def _t5() -> Example:
    from transformers import T5Config, T5ForConditionalGeneration

    settings: dict[str, Any] = {
        "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2,
        "num_heads": 4, "vocab_size": 99, "tie_word_embeddings": False,
    }  # fmt: skip
    config = T5Config(**settings)
    inputs = {**_text(), "decoder_input_ids": torch.randint(3, 90, (2, 5))}
    free = {**_TOKENS, "decoder_input_ids": {0: "batch", 1: "steps"}}
    model = T5ForConditionalGeneration(config)
    # As in GPT-2: the table that encoder, decoder and head share would be stored twice.
    model.decoder.embed_tokens = copy.deepcopy(model.decoder.embed_tokens)
    model.lm_head = copy.deepcopy(model.lm_head)
    return _wrapped(model, inputs=inputs, output="logits", free=free, use_cache=False)


def _unet() -> Example:
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=16, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), norm_num_groups=8,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
    )  # fmt: skip
    inputs = {
        "sample": torch.randn(2, 4, 16, 16),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 16),
    }
    free = {name: {0: "batch"} for name in inputs}
    return _wrapped(model, inputs=inputs, output="sample", free=free)


def _dit() -> Example:
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2,
        sample_size=8, patch_size=2, num_embeds_ada_norm=50, norm_num_groups=4,
    )  # fmt: skip
    inputs = {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([3, 500]),
        "class_labels": torch.tensor([1, 7]),
    }
    free = {name: {0: "batch"} for name in inputs}
    return _wrapped(model, inputs=inputs, output="sample", free=free)


EXAMPLES: Final[Mapping[str, Callable[[], Example]]] = {
    "BERT": _bert,
    "GPT-2": _gpt2,
    "Llama": _llama,
    "ViT": _vit,
    "CLIP": _clip,
    "Whisper encoder": _whisper,
    "T5": _t5,
    "UNet2DCondition": _unet,
    "DiT": _dit,
}


def export(example: Example, path: Path, *, new: bool) -> Path:
    """Write the module as ONNX, by the exporter on `torch.export` or by the one on tracing."""
    names = list(example.inputs)
    tensors = tuple(example.inputs.values())
    common: dict[str, Any] = {"input_names": names, "output_names": ["output"]}
    free: dict[str, Any]
    if new:
        dims = {each for sizes in example.free.values() for each in sizes.values()}
        made = dict.fromkeys(dims, torch.export.Dim.DYNAMIC)
        shapes = [
            {place: made[size] for place, size in example.free.get(name, {}).items()}
            for name in names
        ]
        free = {
            "dynamic_shapes": (tuple(shapes),),
            "dynamo": True,
            "external_data": False,
            "verbose": False,
        }
    else:
        free = {"dynamic_axes": example.free, "dynamo": False, "opset_version": 17}
    with quiet():
        torch.onnx.export(example.module, tensors, str(path), **common, **free)
    return path


class quiet:  # noqa: N801 - reads as a statement
    """Keep what exporters print and warn off the output."""

    def __enter__(self) -> None:
        """Begin."""
        self._out = redirect_stdout(io.StringIO())
        self._out.__enter__()
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        self._level = logging.root.manager.disable
        logging.disable(logging.ERROR)

    def __exit__(self, *details: object) -> None:
        """End."""
        logging.disable(self._level)
        self._warnings.__exit__(None, None, None)
        self._out.__exit__(None, None, None)
