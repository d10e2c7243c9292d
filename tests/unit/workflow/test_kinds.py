"""Searches of kinds of models and data beside the main path, in simulation, on small ones."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import mpsearch
from benchmarks.zoo.denoiser import denoiser, noised
from benchmarks.zoo.place import is_present
from mpsearch.errors import DataError
from mpsearch.tasks.synthetic import SyntheticInputs

_SEARCH: dict[str, Any] = {
    "budgets": {"weight_bits": 5.0},
    "formats": ["w4", "w8"],
    "runtime": "simulation",
    "effort": 1.0,
}


def test_a_masked_language_model_keeps_tied_weights_in_one_format(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "model")
    ids = torch.randint(1, 40, (12, 10), generator=torch.Generator().manual_seed(1))
    hidden = torch.arange(10) % 5 == 2
    data = {
        "input_ids": torch.where(hidden, 3, ids),
        "attention_mask": torch.ones_like(ids),
        "labels": torch.where(hidden, ids, -100),
    }
    result = mpsearch.search(
        tmp_path / "model", data, test=data, cache=tmp_path / "cache", **_SEARCH
    )
    formats = result.plan.assignment
    assert formats["cls.predictions.decoder"] == formats["bert.embeddings.word_embeddings"]
    told = {row.quantity: row.measured for row in result.verification}
    assert any("masked_accuracy" in quantity for quantity in told)


def _classifier(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    config.image_size = 32
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    return folder


def test_without_data_the_search_runs_and_says_so_everywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = _classifier(tmp_path / "model")
    wanted = SyntheticInputs(shapes={"pixel_values": (3, 32, 32)}, samples=8, steps=3)
    with caplog.at_level(logging.WARNING, logger="mpsearch.workflow"):
        result = mpsearch.search(model, wanted, cache=tmp_path / "cache", **_SEARCH)
    assert any("NO DATA WAS GIVEN" in record.message for record in caplog.records)
    assert any("NO DATA WAS GIVEN" in note for note in result.notes)
    assert result.sensitivity.provenance.data.startswith("synthetic:")
    result.save(tmp_path / "out")
    assert "NO DATA WAS GIVEN" in (tmp_path / "out" / "report.html").read_text()
    assert "NO DATA WAS GIVEN" in (tmp_path / "out" / "result.json").read_text()


def test_a_module_without_data_must_say_its_shapes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"SyntheticInputs\(shapes="):
        mpsearch.search(torch.nn.Linear(3, 2), None, cache=tmp_path, **_SEARCH)


@pytest.mark.zoo
@pytest.mark.skipif(not is_present(), reason="the zoo is not beside the project")
def test_a_denoiser_is_searched_on_its_steps(tmp_path: Path) -> None:
    model = denoiser()
    result = mpsearch.search(
        model,
        noised(model, rows=range(8), seed=0),
        validation=noised(model, rows=range(8, 16), seed=1),
        task="denoiser",
        cache=tmp_path,
        **_SEARCH,
    )
    told = {row.quantity: row.measured for row in result.verification}
    sqnr = next(value for quantity, value in told.items() if "sqnr" in quantity)
    assert sqnr > 15  # dB: the error is below a thirtieth of the prediction's power
