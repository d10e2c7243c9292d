"""Pipelines of diffusers load part by part; nothing is built that is not on the list."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mpsearch
from mpsearch.errors import DataError, ModelError
from mpsearch.tasks.denoiser_calls import DenoiserCalls, record_calls
from mpsearch.testing.pipelines import (
    save_class_conditional,
    save_text_conditional,
    save_text_conditional_patches,
    save_unconditional,
)
from mpsearch.tracing import trace_model
from mpsearch.tracing.pipeline import load_pipeline

pytest.importorskip("diffusers", reason="needs the extra 'diffusion'")

_STEPS = 3


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    """One folder of each kind, with the pipeline that was saved to it."""
    folder = tmp_path_factory.mktemp("pipelines")
    found = {
        "nothing": (folder / "a", save_unconditional(folder / "a")),
        "class": (folder / "b", save_class_conditional(folder / "b")),
        "text": (folder / "c" / "pipeline", save_text_conditional(folder / "c")),
        "patches": (folder / "d", save_text_conditional_patches(folder / "d")),
    }
    for name, scheduler in (("ddim", "DDIMScheduler"),):
        found[name] = (folder / name, save_unconditional(folder / name, scheduler=scheduler))
    return found


_WANTED = {
    "nothing": DenoiserCalls(pictures=2, steps=_STEPS),
    "ddim": DenoiserCalls(pictures=2, steps=_STEPS),
    "class": DenoiserCalls(classes=(1, 7), steps=_STEPS),
    "patches": DenoiserCalls(prompts=("a cat", "a dog"), steps=_STEPS),
    "text": DenoiserCalls(prompts=("a cat", "a dog"), steps=_STEPS),
}


@pytest.mark.parametrize("kind", _WANTED)
def test_every_call_of_the_denoiser_is_recorded_and_traced(
    saved: dict[str, tuple[Path, Any]], kind: str
) -> None:
    loaded = load_pipeline(saved[kind][0])
    batches = list(record_calls(loaded, _WANTED[kind]))
    halves = 1 if loaded.condition == "nothing" else 2  # guidance calls with and without
    places = sorted(place for _, rows in batches for place in rows)
    assert places == list(range(2 * _STEPS * halves))
    assert loaded.calls(_STEPS) == _STEPS == len(batches)
    first, last = batches[0][0], batches[-1][0]
    assert tuple(first) == loaded.input_names
    assert first["timestep"].shape == (2 * halves,)
    assert int(first["timestep"][0]) > int(last["timestep"][0])
    traced = trace_model(loaded.module, first, root=loaded.root)
    with torch.no_grad():
        torch.testing.assert_close(traced.module(**last), loaded.module(**last))


def test_recorded_calls_are_those_that_make_the_picture(
    saved: dict[str, tuple[Path, Any]],
) -> None:
    """A second method: the loop of DDPM by hand, from the same noise."""
    folder, pipeline = saved["nothing"]
    calls = [call for call, _ in record_calls(load_pipeline(folder), _WANTED["nothing"])]
    noise = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    image = torch.cat([torch.randn(1, 1, 8, 8, generator=each) for each in noise])
    pipeline.scheduler.set_timesteps(_STEPS)
    for step, call in zip(pipeline.scheduler.timesteps, calls, strict=True):
        torch.testing.assert_close(call["sample"], image)
        with torch.no_grad():
            predicted = pipeline.unet(image, step).sample
        image = pipeline.scheduler.step(predicted, step, image, generator=noise).prev_sample


def test_a_picture_has_its_noise_whatever_is_made_beside_it(
    saved: dict[str, tuple[Path, Any]],
) -> None:
    loaded = load_pipeline(saved["ddim"][0])

    def picture(number: int, *, of: int) -> torch.Tensor:
        wanted = DenoiserCalls(pictures=of, steps=_STEPS)
        rows = {
            place: call["sample"][row]
            for call, places in record_calls(loaded, wanted)
            for row, place in enumerate(places)
        }
        return torch.stack([rows[number * _STEPS + step] for step in range(_STEPS)])

    torch.testing.assert_close(picture(1, of=2), picture(1, of=5))
    assert not torch.allclose(picture(0, of=2), picture(1, of=2))


def test_classes_that_are_not_named_are_drawn_by_the_seed(
    saved: dict[str, tuple[Path, Any]],
) -> None:
    loaded = load_pipeline(saved["class"][0])
    wanted = DenoiserCalls(pictures=3, steps=1)
    (first, _), (again, _) = (next(iter(record_calls(loaded, wanted))) for _ in range(2))
    assert torch.equal(first["class_labels"], again["class_labels"])
    assert torch.equal(first["hidden_states"], again["hidden_states"])
    assert int(first["class_labels"][:3].max()) < 1000


@pytest.mark.parametrize(
    ("kind", "wanted", "message"),
    [
        ("text", DenoiserCalls(), "makes pictures of texts, and 0 were given"),
        ("nothing", DenoiserCalls(prompts=("a",)), "and 1 texts were given"),
        ("class", DenoiserCalls(classes=(1000,)), "Expected numbers from 0 to 999"),
        ("nothing", DenoiserCalls(steps=0), "of 0 steps"),
    ],
)
def test_what_a_pipeline_cannot_make_is_told(
    saved: dict[str, tuple[Path, Any]], kind: str, wanted: DenoiserCalls, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        next(iter(record_calls(load_pipeline(saved[kind][0]), wanted)))


def _change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


_INDEX, _UNET, _STEPPING = (
    "model_index.json",
    "unet/config.json",
    "scheduler/scheduler_config.json",
)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        (_INDEX, {"_class_name": "DDPMPipelines"}, "nearest to 'DDPMPipeline'"),
        (_INDEX, {"unet": ["my_code", "Evil"]}, "Part 'unet' is 'Evil' of 'my_code'"),
        (_INDEX, {"unet": ["os", "UNet2DModel"]}, "is 'UNet2DModel' of 'os'"),
        (_INDEX, {"unet": ["diffusers", "UNet2D"]}, "nearest to 'UNet2DModel'"),
        (_INDEX, {"unet": []}, "Part 'unet' is '' of ''"),
        (_INDEX, {"../evil": ["diffusers", "UNet2DModel"]}, "outside of it"),
        (_INDEX, {"extra": ["diffusers", "DDPMScheduler"]}, "cannot be read"),
        (_INDEX, {"auto_map": {"x": "y"}}, "asks for code of its own"),
        (_UNET, {"quantization_config": {"bits": 4}}, "quantised already"),
        (_UNET, {"layers_per_block": 900}, "900, and the weights are .* tensors"),
        (_UNET, {"block_out_channels": [2**20, 2**20]}, "describes .* parameters"),
        (_UNET, {"sample_size": 2**20}, "Expected at most 1024"),
        (_UNET, {"block_out_channels": [8, 16]}, "lacks .* weights|cannot be loaded|describes"),
        (_UNET, {"down_block_types": ["Evil", "Evil"]}, "cannot be loaded as UNet2DModel"),
        (_STEPPING, {"num_train_timesteps": 2**40}, "Expected at most 10000"),
        (_STEPPING, {"beta_schedule": "evil"}, "cannot be read as DDPMScheduler"),
    ],
)
def test_pipelines_that_do_not_fit_are_refused_at_once(
    tmp_path: Path, *, file: str, fields: dict[str, object], message: str
) -> None:
    save_unconditional(tmp_path)
    _change(tmp_path / file, **fields)
    start = time.process_time()
    with pytest.raises(ModelError, match=message):
        load_pipeline(tmp_path)
    assert time.process_time() - start < 2


def _without(folder: Path) -> None:
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    tensors.pop("conv_in.bias")
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")


def _as_pickle(folder: Path) -> None:
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "model.bin")


def _cut(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without, "lacks 1 weights of UNet2DModel, first 'conv_in.bias'"),
        (_as_pickle, "only as 'model.bin'"),
        (_cut, "cannot be (read|loaded)"),
    ],
)
def test_damaged_parts_are_told(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    save_unconditional(tmp_path)
    damage(tmp_path / "unet")
    with pytest.raises(ModelError, match=message):
        load_pipeline(tmp_path)


def test_a_search_takes_the_folder_and_counts_the_runs(
    saved: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    measured = mpsearch.measure(
        saved["class"][0],
        DenoiserCalls(pictures=2, steps=_STEPS),
        formats=["w8"],
        runtime="simulation",
        cache=tmp_path,
    )
    assert {layer.runs for layer in measured.graph.layers} == {_STEPS}
