"""A diffusers folder to its denoiser and the pipeline that calls it: safetensors only, offline."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, final

import torch
from torch import nn

from mpsearch.errors import MissingPackageError, ModelError
from mpsearch.tracing.architectures import check_plain, nearest
from mpsearch.tracing.denoisers import (
    ClassConditional,
    TextConditional,
    TextConditionalPatches,
    Unconditional,
)
from mpsearch.tracing.folder_files import CONFIG, check_weights, first_line, inside, read_json
from mpsearch.tracing.plausible import check_folder, check_parameters, check_schedule, meta_device
from mpsearch.tracing.weights import check_complete, imported_transformers, load_weights, quiet

INDEX: Final = "model_index.json"
_SCHEDULE: Final = "scheduler_config.json"

# What a picture is made of: chance alone, one of the model's classes, or a text.
Condition: TypeAlias = Literal["nothing", "class", "text"]


@final
@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How a pipeline names its denoiser, feeds it, and is called."""

    denoiser: str
    condition: Condition
    wrapper: Callable[[nn.Module], nn.Module]
    inputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()  # parts that only look at the finished picture


_UNCONDITIONAL: Final = _Kind(
    denoiser="unet",
    condition="nothing",
    wrapper=Unconditional,
    inputs=("sample", "timestep"),
    options={"output_type": "np"},
)
_KINDS: Final[Mapping[str, _Kind]] = {
    "DDPMPipeline": _UNCONDITIONAL,
    "DDIMPipeline": _UNCONDITIONAL,
    "DiTPipeline": _Kind(
        denoiser="transformer",
        condition="class",
        wrapper=ClassConditional,
        inputs=("hidden_states", "timestep", "class_labels"),
        options={"output_type": "np"},
    ),
    "StableDiffusionPipeline": _Kind(
        denoiser="unet",
        condition="text",
        wrapper=TextConditional,
        inputs=("sample", "timestep", "encoder_hidden_states"),
        options={"output_type": "latent"},
        missing=("safety_checker", "feature_extractor", "image_encoder"),
    ),
    "PixArtAlphaPipeline": _Kind(
        denoiser="transformer",
        condition="text",
        wrapper=TextConditionalPatches,
        inputs=("hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask"),
        options={
            "output_type": "latent",
            "use_resolution_binning": False,
            "clean_caption": False,
        },
    ),
}
_MODELS: Final = (
    *("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel", "Transformer2DModel"),
    *("PixArtTransformer2DModel", "AutoencoderKL"),
)
_SCHEDULERS: Final = (
    *("DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "LMSDiscreteScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
    *("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"),
)
_ENCODERS: Final = ("CLIPTextModel", "T5EncoderModel")
_TOKENIZERS: Final = ("CLIPTokenizer", "CLIPTokenizerFast", "T5Tokenizer", "T5TokenizerFast")


@final
@dataclass(frozen=True, kw_only=True)
class LoadedPipeline:
    """A denoiser with the pipeline of diffusers around it.

    `module` takes `input_names` and gives the prediction; it shares the weights of `denoiser`.
    `run` makes pictures, calling it as often for each as `calls` says of a number of steps.
    `classes` is how many classes the denoiser knows, 0 where it knows none.
    """

    module: nn.Module
    input_names: tuple[str, ...]
    denoiser: nn.Module
    condition: Condition
    run: Callable[..., Any]
    calls: Callable[[int], int]
    classes: int = 0
    task: str = "denoiser"
    root: str = "model."


def load_pipeline(path: Path) -> LoadedPipeline:
    """Load a diffusers folder (`save_pretrained`) in float32.

    No code of the folder runs, nothing is fetched, weights are read from safetensors only.
    Parts that only look at the finished picture (a safety checker) are left out.

    Raises:
        ModelError: The pipeline or one of its parts is not known, its weights are missing,
            unreadable or fewer than the configs describe, or it asks for code of its own.
        MissingPackageError: `diffusers` is not installed.
    """
    index = read_json(path / INDEX)
    check_plain(index, origin=str(path / INDEX))
    name = str(index.get("_class_name", ""))
    if name not in _KINDS:
        raise ModelError(
            f"Folder {str(path)!r} is a {name!r}{nearest(name, list(_KINDS))}. Expected one of "
            f"{', '.join(_KINDS)}. "
            "Load it with diffusers and pass its denoiser, with recorded calls."
        )
    kind = _KINDS[name]
    named = {part: value for part, value in index.items() if isinstance(value, list)}
    parts = {
        part: None if part in kind.missing else _part(inside(path, part), told=told)
        for part, told in named.items()
    }
    diffusers = imported_diffusers()
    options = {"requires_safety_checker": False} if "safety_checker" in parts else {}
    try:
        with quiet(diffusers.utils.logging):
            pipeline = getattr(diffusers, name)(**parts, **options)
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"Folder {str(path)!r} cannot be put together as {name}: {first_line(error)}. "
            f"Expected the parts of this pipeline, found {', '.join(parts)}. Download it again."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    denoiser = getattr(pipeline, kind.denoiser)

    def run(**how: Any) -> Any:  # noqa: ANN401 - diffusers is untyped
        return pipeline(**how, **kind.options)

    def calls(steps: int) -> int:
        pipeline.scheduler.set_timesteps(steps)
        return len(pipeline.scheduler.timesteps)

    return LoadedPipeline(
        module=kind.wrapper(denoiser).eval(),
        input_names=kind.inputs,
        denoiser=denoiser,
        condition=kind.condition,
        run=run,
        calls=calls,
        classes=_classes(denoiser) if kind.condition == "class" else 0,
    )


def imported_diffusers() -> Any:  # noqa: ANN401 - diffusers is untyped
    """Return the package.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise MissingPackageError(
            f"A diffusers folder needs the package {error.name!r}, which is not installed. "
            "Expected the extra 'diffusion'. Run: pip install 'mpsearch[diffusion]'."
        ) from error
    return diffusers


def _classes(denoiser: Any) -> int:  # noqa: ANN401 - the same
    return int(denoiser.config.num_embeds_ada_norm)


def _part(place: Path, *, told: list[Any]) -> Any:  # noqa: ANN401 - a model, tokeniser or scheduler
    """Return a part by its `[library, class]`; nothing but what is listed above is ever built."""
    library, name = (*(str(each) for each in told), "", "")[:2]
    if library == "diffusers" and name in _MODELS:
        return _model(place, name=name)
    if library == "diffusers" and name in _SCHEDULERS:
        return _scheduler(place, name=name)
    if library == "transformers" and name in _ENCODERS:
        check_weights(place)
        check_folder(place)
        raw = read_json(place / CONFIG)
        check_plain(raw, origin=str(place / CONFIG))
        kind = getattr(imported_transformers(), name)
        return load_weights(place, raw=raw, model_class=kind, config_class=kind.config_class)
    if library == "transformers" and name in _TOKENIZERS:
        return _tokenizer(place, name=name)
    known = (*_MODELS, *_SCHEDULERS, *_ENCODERS, *_TOKENIZERS)
    raise ModelError(
        f"Part {place.name!r} is {name!r} of {library!r}{nearest(name, list(known))}. Expected one "
        f"of {', '.join(known)}, from diffusers or transformers. Load the pipeline where you trust "
        "it, and pass its denoiser and recorded calls."
    )


def _model(place: Path, *, name: str) -> nn.Module:
    check_weights(place)
    check_folder(place)
    raw = read_json(place / CONFIG)
    check_plain(raw, origin=str(place / CONFIG))
    diffusers = imported_diffusers()
    kind = getattr(diffusers, name)
    try:
        with quiet(diffusers.utils.logging):
            with meta_device():
                check_parameters(kind.from_config(raw), place=place)
            model, found = kind.from_pretrained(
                place,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                torch_dtype=torch.float32,
                output_loading_info=True,
            )
    except ModelError:
        raise
    except Exception as error:  # diffusers raises whatever its parts raise
        raise ModelError(
            f"Part {str(place)!r} cannot be loaded as {name}: {type(error).__name__}: "
            f"{first_line(error)}. Expected weights that fit its config.json. Download it again."
        ) from error
    check_complete(found, path=place, what=name)
    loaded: nn.Module = model.eval()
    return loaded


def _scheduler(place: Path, *, name: str) -> Any:  # noqa: ANN401 - diffusers is untyped
    raw = read_json(place / _SCHEDULE)
    check_schedule(raw)
    diffusers = imported_diffusers()
    try:
        with quiet(diffusers.utils.logging):
            return getattr(diffusers, name).from_config(raw)
    except Exception as error:  # the same
        raise ModelError(
            f"Part {str(place)!r} cannot be read as {name}: {first_line(error)}. Expected the "
            "fields of this scheduler. Download it again."
        ) from error


def _tokenizer(place: Path, *, name: str) -> Any:  # noqa: ANN401 - transformers is untyped
    transformers = imported_transformers()
    try:
        with quiet(transformers.utils.logging):
            return getattr(transformers, name).from_pretrained(
                place, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # transformers raises whatever its parts raise
        raise ModelError(
            f"Part {str(place)!r} cannot be read as {name}: {first_line(error)}. Expected the "
            "files of a tokeniser. Download it again."
        ) from error
