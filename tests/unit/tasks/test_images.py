"""Folders of images: prepared as the model says, labelled by their subfolders."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image

import mpsearch
from mpsearch.errors import DataError
from mpsearch.tasks import Dataset, read_data

SIZE = 16
SETTINGS = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
    "resample": 2,
}


def _model(folder: Path, *, classes: Mapping[str, int] | None = None) -> Path:
    """Write what a model's folder says about images and classes."""
    place = folder / "model"
    place.mkdir()
    (place / "preprocessor_config.json").write_text(json.dumps(SETTINGS))
    (place / "config.json").write_text(json.dumps({"model_type": "vit", "label2id": classes}))
    return place


def _paint(path: Path, *, colour: tuple[int, int, int], size: tuple[int, int] = (40, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def _read(images: Path, *, model: Path | None, limit: int | None = None) -> Dataset:
    return read_data(
        images,
        input_names=("pixel_values",),
        batch_size=2,
        folder=images.parent / "data",
        model=model,
        limit=limit,
    )


def _columns(data: Dataset) -> tuple[torch.Tensor, list[int]]:
    batches = list(data)
    pixels = torch.cat([batch["pixel_values"] for batch in batches])
    return pixels, [int(n) for batch in batches for n in batch.get("label", torch.zeros(0))]


def test_pixels_are_those_that_the_settings_ask_for(tmp_path: Path) -> None:
    """An even colour c stays even and becomes (c / 255 - mean) / deviation."""
    _paint(tmp_path / "images" / "a.png", colour=(0, 127, 255))
    _paint(tmp_path / "images" / "b.jpg", colour=(255, 255, 255), size=(9, 31))
    pixels, labels = _columns(_read(tmp_path / "images", model=_model(tmp_path)))
    assert pixels.shape == (2, 3, SIZE, SIZE)
    for channel, value in enumerate((0, 127, 255)):
        wanted = torch.full((SIZE, SIZE), (value / 255 - 0.5) / 0.25)
        torch.testing.assert_close(pixels[0, channel], wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pixels[1], torch.full((3, SIZE, SIZE), 2.0), rtol=0, atol=0.05)
    assert labels == []


@pytest.mark.parametrize(
    ("names", "known", "wanted"),
    [
        (("cat", "dog"), {"dog": 3, "cat": 8, "cow": 1}, [8, 3, 8, 3]),
        (("cat", "dog"), {"dog": 3}, [0, 1, 0, 1]),
        (("12", "7"), {}, [12, 7, 12, 7]),
    ],
)
def test_subfolders_are_classes_that_take_turns(
    tmp_path: Path, *, names: tuple[str, ...], known: dict[str, int], wanted: list[int]
) -> None:
    for shade, name in enumerate(names):
        for place in range(2):
            _paint(tmp_path / "images" / name / f"{place}.png", colour=(100 * shade, place, 0))
    model = _model(tmp_path, classes=known)
    pixels, labels = _columns(_read(tmp_path / "images", model=model))
    assert labels == wanted
    assert (pixels[:, 0, 0, 0] > -1.5).tolist() == [False, True, False, True]
    assert _columns(_read(tmp_path / "images", model=model, limit=3))[1] == wanted[:3]


def test_a_limit_leaves_some_of_each_class_though_one_is_larger(tmp_path: Path) -> None:
    for name, count in (("a", 9), ("b", 2)):
        for place in range(count):
            _paint(tmp_path / "images" / name / f"{place}.png", colour=(0, 0, 0))
    labels = _columns(_read(tmp_path / "images", model=_model(tmp_path), limit=6))[1]
    assert labels == [0, 1, 0, 1, 0, 0]


def test_what_cannot_be_images_is_refused(tmp_path: Path) -> None:
    model, images = _model(tmp_path), tmp_path / "images"
    images.mkdir()
    with pytest.raises(DataError, match="0 images and 0 subfolders"):
        _read(images, model=model)
    _paint(images / "a.png", colour=(0, 0, 0))
    with pytest.raises(DataError, match="preprocessor_config"):
        _read(images, model=None)
    (images / "b.png").write_bytes((images / "a.png").read_bytes()[:20])
    with pytest.raises(DataError, match=r"b\.png"):
        _read(images, model=model)
    (images / "b.png").unlink()
    _paint(images / "class" / "c.png", colour=(0, 0, 0))
    with pytest.raises(DataError, match="1 images and 1 subfolders"):
        _read(images, model=model)
    (images / "a.png").unlink()
    (model / "preprocessor_config.json").write_text('{"image_processor_type": "None"}')
    with pytest.raises(DataError, match="cannot be used"):
        _read(images, model=model)


def test_a_vision_folder_is_searched_with_a_folder_of_images(tmp_path: Path) -> None:
    """From files alone: model folder, images by class, a plan, accuracy measured on labels."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        image_size=SIZE,
        patch_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        id2label={0: "dark", 1: "light"},
        label2id={"dark": 0, "light": 1},
    )
    model = tmp_path / "model"
    ViTForImageClassification(config).save_pretrained(model)
    (model / "preprocessor_config.json").write_text(json.dumps(SETTINGS))
    for part in ("calibration", "test"):
        for name, shade in (("dark", 30), ("light", 220)):
            for place in range(6):
                colour = (shade + place, shade, shade - place)
                _paint(tmp_path / part / name / f"{place}.png", colour=colour)
    result = mpsearch.search(
        model,
        tmp_path / "calibration",
        test=tmp_path / "test",
        budgets={"weight_bits": "5"},
        runtime="simulation",
        cache=tmp_path / "cache",
        effort=1.0,
    )
    assert result.measured.graph.names
    assert any("accuracy" in row.quantity for row in result.verification)
