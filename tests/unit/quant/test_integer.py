"""Laws of integer weights and 8-bit activations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Float32
from numpy import ndarray

from mpsearch.core.formats import Granularity, TensorFormat, format_named
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.errors import FormatError, ModelError
from mpsearch.quant.integer import (
    dequantise_activation,
    quantise_activation,
    quantise_weight,
)
from mpsearch.quant.ranges import quantizer_of_range


def test_codes_and_scales_equal_the_definition_by_hand() -> None:
    weight = np.array([[0.5, -7.0, 3.4], [14.0, 1.0, -3.0]])
    stored = quantise_weight(weight, format_named("w4").weight)
    np.testing.assert_array_equal(stored.scale, np.array([1.0, 2.0], dtype=np.float32))
    # 0.5 / 1 and 1 / 2 are ties that go to the even code 0; -3 / 2 = -1.5 goes to -2.
    np.testing.assert_array_equal(stored.codes, [[0, -7, 3], [7, 0, -2]])
    np.testing.assert_array_equal(stored.dequantise(), [[0, -7, 3], [14, 0, -4]])


@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_use_the_symmetric_range_and_reach_its_ends(bits: int) -> None:
    weight = np.linspace(-3, 3, 1001, dtype=np.float32).reshape(1, -1)
    codes = quantise_weight(weight, format_named(f"w{bits}").weight).codes
    assert codes.dtype == np.int8
    assert (codes.min(), codes.max()) == (-(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1)
    assert len(np.unique(codes)) == 2**bits - 1


def test_each_index_of_the_axis_has_its_own_scale() -> None:
    weight = np.random.default_rng(0).normal(size=(3, 5, 2, 2)).astype(np.float32)
    for axis in (0, 1, -3):
        stored = quantise_weight(weight, format_named("w8").weight, axis=axis)
        moved = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        np.testing.assert_allclose(stored.scale, np.abs(moved).max(axis=1) / 127, rtol=1e-6)
        assert np.abs(stored.dequantise() - weight).max() <= stored.scale.max() / 2 * 1.00001


def test_groups_equal_rows_of_the_group_size() -> None:
    weight = np.random.default_rng(1).normal(size=(6, 256)).astype(np.float32)
    grouped = quantise_weight(weight, format_named("w4g128").weight)
    rows = quantise_weight(weight.reshape(12, 128), format_named("w4").weight)
    assert grouped.scale.shape == (6, 2)
    np.testing.assert_array_equal(grouped.codes.reshape(12, 128), rows.codes)
    np.testing.assert_array_equal(grouped.dequantise().reshape(12, 128), rows.dequantise())


def test_an_all_zero_channel_gives_exact_zeros_and_scale_one() -> None:
    weight = np.array([[0.0, -0.0], [1.0, 2.0]], dtype=np.float32)
    stored = quantise_weight(weight, format_named("w8").weight)
    assert stored.scale[0] == 1.0
    assert stored.dequantise()[0].tobytes() == np.zeros(2, dtype=np.float32).tobytes()


def test_denormal_weights_neither_divide_by_zero_nor_leave_half_a_step() -> None:
    weight = np.array([[1e-44, -1e-45, 1e-40]], dtype=np.float32)
    stored = quantise_weight(weight, format_named("w8").weight)
    assert (stored.scale >= np.finfo(np.float32).tiny).all()
    assert (np.abs(stored.dequantise() - weight) <= stored.scale / 2).all()


def test_the_largest_float_keeps_its_sign_and_stays_finite() -> None:
    weight = np.array([[np.finfo(np.float32).max, -1.0]], dtype=np.float32)
    stored = quantise_weight(weight, format_named("w8").weight)
    np.testing.assert_array_equal(stored.codes, [[127, 0]])


def test_asymmetric_codes_equal_the_definition_by_hand() -> None:
    weight = np.array([[0.0, 1.5, 3.1], [-2.0, -1.0, 4.0], [1.0, 2.0, 3.0], [-1.4, 0.0, 1.6]])
    stored = quantise_weight(weight, format_named("w2-asymmetric").weight)
    # Ranges hold zero: 0 to 3.1, -2 to 4, 0 to 3, -1.4 to 1.6, in three steps each. Zero is
    # the code nearest to -2 - low / step: -2, -1, -2, and -1 for -0.6.
    np.testing.assert_allclose(stored.scale, np.array([3.1 / 3, 2.0, 1.0, 1.0]), rtol=1e-6)
    np.testing.assert_array_equal(stored.zero_point, [-2, -1, -2, -1])
    # 1.5 / 1.033 = 1.45 goes to 1; -1 / 2 is a tie that goes to the even step 0.
    np.testing.assert_array_equal(stored.codes, [[-2, -1, 1], [-2, -1, 1], [-1, 0, 1], [-2, -1, 1]])
    expected = np.array([[0, 3.1 / 3, 3.1], [-2, 0, 4], [1, 2, 3], [-1, 0, 2]])
    np.testing.assert_allclose(stored.dequantise(), expected, rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_asymmetric_codes_store_one_sided_weights_better(bits: int) -> None:
    """Even numbers over a range lose step^2 / 12 each, and a step is shorter by the formula."""
    weight = np.linspace(0.0, 1.0, 30_000, dtype=np.float32)[None]
    errors = {}
    for kind, steps in (("", 2 ** (bits - 1) - 1), ("-asymmetric", 2**bits - 1)):
        stored = quantise_weight(weight, format_named(f"w{bits}{kind}").weight).dequantise()
        errors[kind] = float(np.square(stored.astype(np.float64) - weight).mean())
        # Both lattices hold both ends, so every step is whole or a half at an end.
        assert errors[kind] == pytest.approx(1 / steps**2 / 12, rel=1e-3)
    ratio = (2**bits - 1) / (2 ** (bits - 1) - 1)
    assert errors[""] / errors["-asymmetric"] == pytest.approx(ratio**2, rel=2e-3)


@pytest.mark.parametrize("kind", ["", "-asymmetric", "-mse", "-asymmetric-mse"])
def test_scales_of_tensor_channel_and_group_are_one_definition(kind: str) -> None:
    """A tensor is one long row, a group a short one; each finer scale loses no more."""
    weight = np.random.default_rng(6).standard_t(3, size=(4, 32)).astype(np.float32)
    stored = {
        scales: quantise_weight(weight, format_named(f"w3{scales}{kind}").weight)
        for scales in ("t", "", "g8")
    }
    rows = format_named(f"w3{kind}").weight
    for scales, shape in (("t", (1, 128)), ("g8", (16, 8))):
        as_rows = quantise_weight(weight.reshape(shape), rows)
        np.testing.assert_array_equal(stored[scales].codes.reshape(shape), as_rows.codes)
        np.testing.assert_array_equal(
            stored[scales].dequantise().reshape(shape), as_rows.dequantise()
        )
    assert stored["t"].scale.shape == ()
    assert stored["g8"].scale.shape == (4, 4)
    loss = [np.square(each.dequantise() - weight).sum() for each in stored.values()]
    if kind == "-mse":
        # The best scale of a part is at least as good for it as that of the whole.
        assert loss[0] >= loss[1] >= loss[2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused_by_name(value: float) -> None:
    weight = np.array([[1.0, value]], dtype=np.float32)
    with pytest.raises(ModelError, match=r"'encoder\.0' holds 1 numbers of 2"):
        quantise_weight(weight, format_named("w8").weight, name="encoder.0")


@pytest.mark.parametrize(
    ("number", "shape"),
    [
        (TensorFormat(kind="integer", bits=9), (2, 2)),
        (TensorFormat(kind="integer", bits=1), (2, 2)),
        (TensorFormat(kind="floating", bits=16), (2, 2)),
        (TensorFormat(kind="integer", bits=8, granularity=Granularity.TOKEN), (2, 2)),
        (TensorFormat(kind="integer", bits=8, dynamic=True), (2, 2)),
        (TensorFormat(kind="integer", bits=8, granularity=Granularity.CHANNEL), ()),
        (format_named("w4g128").weight, (4, 100)),
        (format_named("w4g128").weight, (4, 128, 1)),
        (TensorFormat(kind="integer", bits=4, granularity=Granularity.GROUP), (4, 128)),
    ],
)
def test_a_format_that_does_not_fit_is_refused(
    number: TensorFormat, shape: tuple[int, ...]
) -> None:
    with pytest.raises(FormatError, match="Expected"):
        quantise_weight(np.ones(shape, dtype=np.float32), number)


_RANGES = st.tuples(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32)).map(sorted)


@settings(deadline=None)  # a busy machine is no broken law
@given(
    ends=_RANGES,
    values=hnp.arrays(np.float32, 20, elements=st.floats(0, 1, width=32)),
)
def test_activations_inside_the_range_err_at_most_half_a_step(
    ends: list[float], values: Float32[ndarray, " N"]
) -> None:
    quantizer = quantizer_of_range(*ends)
    inside = quantizer.low + values.astype(float) * (quantizer.high - quantizer.low)
    inside = np.append(inside, [quantizer.low, quantizer.high, 0.0]).astype(np.float32)
    back = dequantise_activation(quantise_activation(inside, quantizer), quantizer)
    # float32 rounds x / scale, so a tie may fall on either side.
    assert (np.abs(back - inside) <= quantizer.scale * (0.5 + 1e-4)).all()
    assert back[-1] == 0.0


def test_activations_outside_the_range_saturate() -> None:
    quantizer = quantizer_of_range(-1.0, 3.0)
    outside = np.array([-1e9, 1e9, -np.inf, np.inf], dtype=np.float32)
    np.testing.assert_array_equal(quantise_activation(outside, quantizer), [0, 255, 0, 255])


def test_activation_ties_go_to_the_even_step_before_the_zero_point_is_added() -> None:
    quantizer = ActivationQuantizer(
        scale=1.0, zero_point=3, low=-3.0, high=252.0, method="given", samples=0
    )
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5], dtype=np.float32)
    np.testing.assert_array_equal(quantise_activation(values, quantizer), [3, 5, 5, 3, 1])


def test_activations_equal_the_reference_evaluation_of_the_onnx_operators() -> None:
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    quantizer = quantizer_of_range(-0.731, 2.9)
    graph = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N] x, float s, uint8 z) => (float[N] y)'
        "{ q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }"
    )
    values = np.random.default_rng(2).normal(size=5000).astype(np.float32)
    feeds = {"x": values, "s": np.float32(quantizer.scale), "z": np.uint8(quantizer.zero_point)}
    (expected,) = ReferenceEvaluator(graph).run(None, feeds)
    mine = dequantise_activation(quantise_activation(values, quantizer), quantizer)
    np.testing.assert_array_equal(mine, expected)
