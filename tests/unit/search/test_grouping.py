"""A grouping is data: patterns and kinds, the first match wins, and nothing is left over."""

from pathlib import Path

import pytest

from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.errors import UnknownLayerError, UsageError
from mpsearch.search.grouping import LayerGroup, layers_by_group, load_grouping

NAMES = ("down.attn1.to_q", "down.attn2.to_k", "down.ff.net", "conv_in")


def graph() -> LayerGraph:
    """Return a graph of three linear layers and a convolution."""
    layers = tuple(
        Layer(
            name=name,
            op=Op.CONV if name.startswith("conv") else Op.LINEAR,
            weight_shape=(4, 4),
            input_shape=(1, 4),
            output_shape=(1, 4),
            macs=16,
            inputs_from="input",
        )
        for name in NAMES
    )
    return LayerGraph(layers=layers, edges=(), fingerprint="made up")


def test_the_shipped_grouping_splits_content_from_quality() -> None:
    groups = load_grouping("diffusion")
    found = layers_by_group(groups, graph())
    assert found == {
        "content": ("down.attn2.to_k", "down.ff.net"),
        "quality": ("down.attn1.to_q", "conv_in"),
    }
    assert [group.metric for group in groups] == ["structural_similarity", "sqnr_list"]


def test_a_kind_is_a_pattern_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[group]]\nname = "images"\nlayers = ["kind:conv"]\n[[group]]\nname = "rest"\n'
        'layers = ["*"]\nmetric = "output_cosine"\n'
    )
    assert layers_by_group(load_grouping(file), graph())["images"] == ("conv_in",)


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ([("a", "nothing*"), ("b", "*")], r"'nothing\*' of group 'a' matches no layer"),
        ([("a", "*ff*"), ("b", "*attn*")], "'conv_in' is in none"),
        ([("a", "*"), ("b", "*ff*")], "'b' is left without"),
        ([("a", "*ff*"), ("b", "kind:embedding")], "'kind:embedding' of group 'b'"),
    ],
)
def test_a_layer_too_many_or_too_few_is_named(groups: list[tuple[str, str]], told: str) -> None:
    made = [LayerGroup(name=name, layers=(pattern,)) for name, pattern in groups]
    with pytest.raises(UnknownLayerError, match=told):
        layers_by_group(made, graph())


@pytest.mark.parametrize("names", [("a",), ("a", "a")])
def test_fewer_than_two_groups_are_none(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="two or more"):
        layers_by_group([LayerGroup(name=name, layers=("*",)) for name in names], graph())


@pytest.mark.parametrize("text", ["group = 1", "[[group]]\nname = 'a'", "[[group"])
def test_a_malformed_file_says_what_was_expected(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"Expected tables \[\[group\]\]"):
        load_grouping(file)


def test_an_unknown_name_lists_those_that_ship() -> None:
    with pytest.raises(UsageError, match=r"one of diffusion"):
        load_grouping("fusion")
