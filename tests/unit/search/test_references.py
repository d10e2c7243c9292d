"""Reference plans are all the plans that need no search."""

from dataclasses import replace

from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.core.hardware import Support
from mpsearch.search import reference_assignments
from mpsearch.search.references import pattern_of, pinned


def layer(name: str, op: Op) -> Layer:
    """Return a small layer."""
    return Layer(
        name=name,
        op=op,
        weight_shape=(8, 8),
        input_shape=(1, 8),
        output_shape=(1, 8),
        macs=64,
        inputs_from=name,
    )


GRAPH = LayerGraph(
    layers=(layer("embed", Op.EMBEDDING), layer("one", Op.LINEAR), layer("two", Op.CONV)),
    edges=((0, 1), (1, 2)),
    fingerprint="x",
)
FORMATS = ("w8a8", "w8", "w4g128", "w4")
NATIVE, STORAGE = Support.NATIVE, Support.STORAGE
SUPPORT = {
    "embed": {"bf16": NATIVE, "w8": STORAGE, "w4": STORAGE},
    "one": {"bf16": NATIVE, "w8a8": NATIVE, "w8": NATIVE, "w4g128": NATIVE},
    "two": {"bf16": NATIVE, "w8a8": NATIVE, "w8": STORAGE},
}


def test_every_pair_of_formats_is_there_once() -> None:
    found = reference_assignments(GRAPH, base="bf16", formats=FORMATS, support=SUPPORT)
    # Four for Linear and Conv (base, w8a8, w8, w4g128) times three for embeddings.
    assert len(found) == 12
    assert len({tuple(each.values()) for each in found}) == 12
    assert found[0] == {"embed": "bf16", "one": "bf16", "two": "bf16"}


def test_a_layer_that_cannot_take_a_format_stays_in_the_base() -> None:
    found = reference_assignments(GRAPH, base="bf16", formats=("w4g128",), support=SUPPORT)
    assert {"embed": "bf16", "one": "w4g128", "two": "bf16"} in found


def test_layers_that_share_a_weight_share_its_format_or_stay_in_the_base() -> None:
    tied = replace(GRAPH, shared_weights=((0, 1),))
    found = reference_assignments(tied, base="bf16", formats=FORMATS, support=SUPPORT)
    assert {(each["embed"], each["one"]) for each in found} == {("bf16", "bf16"), ("w8", "w8")}
    # The convolution is free as before: base, w8a8, w8 with either of them.
    assert len({tuple(each.values()) for each in found}) == len(found) == 6


def test_a_format_that_no_layer_takes_gives_no_plan() -> None:
    found = reference_assignments(GRAPH, base="bf16", formats=("w2",), support=SUPPORT)
    assert found == ({"embed": "bf16", "one": "bf16", "two": "bf16"},)


def test_pins_hold_in_references_and_the_last_pattern_counts() -> None:
    plan = {"embed": "w8", "one": "w4g128", "two": "w8a8"}
    fixed = {"*": "w8", "o*": "fp32"}
    assert pinned(plan, fixed=fixed, base="bf16") == {"embed": "w8", "one": "bf16", "two": "w8"}
    assert pinned(plan, fixed={}, base="bf16") == plan
    assert pattern_of("one", fixed=fixed) == "fp32"
    assert pattern_of("one", fixed={"two": "w8"}) is None


def test_products_are_combined_with_the_others() -> None:
    graph = replace(GRAPH, layers=(*GRAPH.layers, layer("at@matmul", Op.PRODUCT)))
    support = SUPPORT | {"at@matmul": {"bf16": NATIVE, "a8": NATIVE}}
    found = reference_assignments(graph, base="bf16", formats=("w8a8", "a8"), support=support)
    pairs = {(each["one"], each["at@matmul"]) for each in found}
    assert pairs == {("bf16", "bf16"), ("bf16", "a8"), ("w8a8", "bf16"), ("w8a8", "a8")}
    assert len(found) == len(pairs)
