"""Small random pipelines of diffusers, saved as their makers save them."""

import importlib
import json
from pathlib import Path
from typing import Any

import torch

_BLOCKS = {"layers_per_block": 1, "norm_num_groups": 4, "block_out_channels": (8, 8)}


def save_unconditional(folder: Path, *, scheduler: str = "DDPMScheduler") -> Any:  # noqa: ANN401 - diffusers is untyped
    """Save a UNet with its scheduler, and return the pipeline."""
    diffusers = _package("diffusers")

    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        **_BLOCKS,
    )
    kind = {"DDPMScheduler": "DDPMPipeline", "DDIMScheduler": "DDIMPipeline"}[scheduler]
    steps = getattr(diffusers, scheduler)(num_train_timesteps=100)
    return _saved(getattr(diffusers, kind)(unet=unet, scheduler=steps), folder=folder)


def save_class_conditional(folder: Path) -> Any:  # noqa: ANN401 - the same
    """Save a transformer over patches of latents, conditioned on one of a thousand classes."""
    diffusers = _package("diffusers")

    torch.manual_seed(0)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=1000,  # the pipeline takes 1000 for no class
        norm_num_groups=2,
    )
    steps = diffusers.DPMSolverMultistepScheduler(num_train_timesteps=100)
    pipeline = diffusers.DiTPipeline(
        transformer=transformer, vae=_autoencoder(diffusers), scheduler=steps
    )
    return _saved(pipeline, folder=folder)


def save_text_conditional(folder: Path, *, scheduler: str = "DDIMScheduler") -> Any:  # noqa: ANN401 - the same
    """Save a UNet that is conditioned on a text, with its encoder and tokeniser."""
    diffusers, transformers = _package("diffusers"), _package("transformers")

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **_BLOCKS,
    )
    tokenizer = _tokenizer(folder / "words", transformers=transformers)
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=_autoencoder(diffusers),
        text_encoder=transformers.CLIPTextModel(config),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=getattr(diffusers, scheduler)(num_train_timesteps=100),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _saved(pipeline, folder=folder / "pipeline")


def save_text_conditional_patches(folder: Path) -> Any:  # noqa: ANN401 - the same
    """Save a transformer over patches that is conditioned on a text and its mask."""
    diffusers, transformers = _package("diffusers"), _package("transformers")
    torch.manual_seed(0)
    letters = [("\u2581", -1.0), *((chr(ord("a") + place), -2.0) for place in range(26))]
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokenizer = transformers.T5Tokenizer(vocab=[*marks, *letters])
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    transformer = diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=8,
        patch_size=2,
        norm_num_groups=2,
        use_additional_conditions=False,
    )
    pipeline = diffusers.PixArtAlphaPipeline(
        tokenizer=tokenizer,
        text_encoder=transformers.T5EncoderModel(config),
        vae=_autoencoder(diffusers),
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(num_train_timesteps=100),
    )
    return _saved(pipeline, folder=folder)


def _package(name: str) -> Any:  # noqa: ANN401 - the same
    return importlib.import_module(name)


def _autoencoder(diffusers: Any) -> Any:  # noqa: ANN401 - the same
    return diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        sample_size=16,
        **_BLOCKS,
    )


def _tokenizer(folder: Path, *, transformers: Any) -> Any:  # noqa: ANN401 - the same
    """Return a tokeniser of single letters, made from the two files that CLIP's reads."""
    folder.mkdir(parents=True)
    letters = [chr(ord("a") + place) for place in range(26)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{each}</w>" for each in letters)]
    vocabulary = {word: place for place, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8
    )


def _saved(pipeline: Any, *, folder: Path) -> Any:  # noqa: ANN401 - the same
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return pipeline
