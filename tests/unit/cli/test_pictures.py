"""`--steps` says over how many steps pictures are made, where data tells pictures."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mpsearch.cli.pictures import over_steps
from mpsearch.errors import DataError, UsageError
from mpsearch.tasks.denoiser_calls import DenoiserCalls
from mpsearch.workflow.reading import Reader, pictures_of


def test_without_it_data_stays_as_it_is() -> None:
    assert over_steps(None, None) is None
    assert over_steps(Path("calls.npz"), None) == Path("calls.npz")


def test_pictures_are_made_in_so_many_steps(tmp_path: Path) -> None:
    texts = tmp_path / "prompts.jsonl"
    texts.write_text('{"text": "a cat"}\n{"text": "a dog"}\n')
    found = over_steps(texts, 7)
    plain = pictures_of(texts)
    assert isinstance(found, DenoiserCalls)
    assert plain is not None
    assert found.steps == 7
    assert (list(found.prompts), found.seed) == (["a cat", "a dog"], plain.seed)
    nothing = over_steps(None, 5)
    assert nothing == DenoiserCalls(steps=5)


def test_data_that_tells_no_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--steps 4.*calls\.npz"):
        over_steps(tmp_path / "calls.npz", 4)


def test_a_model_that_makes_no_pictures_says_so(tmp_path: Path) -> None:
    reader = Reader(source=nn.Linear(2, 2), folder=tmp_path)
    with pytest.raises(DataError, match="diffusers folder"):
        reader.read(DenoiserCalls(steps=4))
    assert len(reader.read([{"input": torch.ones(4, 2)}])) == 1
