"""Laws of how options are read."""

from pathlib import Path

import pytest

from mpsearch.cli.options import read_budgets, read_fixed, read_model, read_workloads
from mpsearch.errors import BudgetError, DataError, FormatError, ModelError, UsageError


def test_a_limit_may_hold_an_equals_sign_and_spaces() -> None:
    assert read_budgets(["latency = 115% of fastest"]) == {"latency": "115% of fastest"}
    assert read_budgets(["latency=<=4ms"]) == {"latency": "<=4ms"}


@pytest.mark.parametrize("text", ["latency", "latency=", "=4ms", ""])
def test_a_budget_without_name_or_limit_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match="--budget weight_bytes=18%"):
        read_budgets([text])


def test_a_budget_given_twice_is_refused() -> None:
    with pytest.raises(BudgetError, match="twice"):
        read_budgets(["latency=4ms", "latency=5ms"])


def test_layers_are_pinned_by_pattern() -> None:
    assert read_fixed(["encoder.*=w8", "head=fp32"]) == {"encoder.*": "w8", "head": "fp32"}
    assert read_fixed(None) is None
    assert read_fixed([]) is None


def test_a_pin_without_a_format_is_refused() -> None:
    with pytest.raises(FormatError, match="--fix"):
        read_fixed(["head"])


def test_a_workload_is_read_by_dimension_or_by_input() -> None:
    assert read_workloads(["b8:batch=8,length=32"]) == {"b8": {"batch": 8, "length": 32}}
    assert read_workloads(["b8:ids=8x32,mask=8x32"]) == {"b8": {"ids": (8, 32), "mask": (8, 32)}}
    assert read_workloads(None) is None


def test_the_first_workload_stays_the_first() -> None:
    found = read_workloads(["z:batch=1", "a:batch=32"])
    assert found is not None
    assert list(found) == ["z", "a"]


def test_two_workloads_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="one name"):
        read_workloads(["b:batch=1", "b:batch=2"])


@pytest.mark.parametrize("text", ["b8", "b8:", ":ids=1", "b8:ids", "b8:ids=0", "b8:ids=1x", "a:b"])
def test_a_malformed_workload_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="b1:batch=1,length=32"):
        read_workloads([text])


def test_a_model_is_given_exactly_once() -> None:
    with pytest.raises(UsageError, match="No model is given"):
        read_model(None, None)
    with pytest.raises(UsageError, match="Two models are given"):
        read_model(Path("folder"), "package.module:make")
    assert read_model(Path("folder"), None) == Path("folder")


@pytest.fixture
def module_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module of the user's own into the current folder."""
    (tmp_path / "my_models.py").write_text(
        "import torch\n"
        "def make(): return torch.nn.Linear(2, 3)\n"
        "made = torch.nn.Linear(2, 4)\n"
        "def wrong(): return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    return "my_models"


def test_a_callable_of_the_users_gives_the_model(module_here: str) -> None:
    assert "out_features=3" in str(read_model(None, f"{module_here}:make"))
    assert "out_features=4" in str(read_model(None, f"{module_here}:made"))


@pytest.mark.parametrize("name", ["nowhere", "absent.module:make", ":make", ""])
def test_a_reference_to_nothing_is_refused(name: str, module_here: str) -> None:
    reference = f"{module_here}:nowhere" if name == "nowhere" else name
    with pytest.raises(ModelError, match="cannot be found"):
        read_model(None, reference)


def test_a_callable_that_gives_no_model_is_refused(module_here: str) -> None:
    with pytest.raises(ModelError, match="gave a int"):
        read_model(None, f"{module_here}:wrong")
