"""The node cases of onnx's own test suite, run through the importer."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, final

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from torch import Tensor

from benchmarks.bar import Bar, judged
from benchmarks.models.targets import TARGETS
from mpsearch.errors import ModelError
from mpsearch.tracing.onnx_import.checks import versions_of
from mpsearch.tracing.onnx_import.model import from_structure
from mpsearch.tracing.onnx_import.tensors import from_array

# Not asked for: they train, handle sequences, optional values or texts, or decode pictures.
_LEFT_OUT: Final = frozenset(
    {"ImageDecoder", "TfIdfVectorizer", "StringNormalizer", "StringSplit", "StringConcat"}
    | {"RegexFullMatch", "LabelEncoder"}
)
_LEFT_OUT_WORDS: Final = ("Sequence", "Optional", "Random", "Bernoulli")
# What torch's exporters write for the models of `exported`, what the models of `packages` hold,
# and what else those exporters write for the layers and functions of torch.nn.
COMMON: Final = frozenset(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
    BatchNormalization BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast Ceil Celu Clip
    Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace
    DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike
    Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool
    Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Identity If
    InstanceNormalization IsInf IsNaN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization MatMul MatMulInteger Max MaxPool Mean Min Mish Mod Mul Neg NonZero
    Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN
    Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize RotaryEmbedding Round
    ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose
    Trilu Unsqueeze Where Xor
    """.split()  # noqa: SIM905 - a list in quotes would be three pages
)
_SMALL_STEP: Final = 4
# Sums in another order differ by a step of these types, which the cases do not allow for.
_STEP: Final = {torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one case: its name, the operators in it, and what was wrong."""

    name: str
    operators: frozenset[str]
    fault: str = ""


def node_cases(*, small: bool) -> Iterator[Bar]:
    """Run every case about numbers; tell the rate of common operators, and of all.

    The small form runs each fourth one: tests run one of each operator anyway.
    """
    with _quiet():
        outcomes = [run_case(case) for case in cases()[:: _SMALL_STEP if small else 1]]
    common = [each for each in outcomes if each.operators <= COMMON]
    for name, chosen in (
        ("node cases of common operators", common),
        ("node cases of all operators on numbers", outcomes),
    ):
        failed = [each for each in chosen if each.fault]
        yield judged(
            name,
            [1 - len(failed) / len(chosen)] if chosen else [],
            target=TARGETS[name],
            extra={
                "cases": len(chosen),
                "failed": sorted(each.name for each in failed),
                "first_fault": failed[0].fault[:200] if failed else "",
            },
        )


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


@cache
def cases() -> tuple[TestCase, ...]:
    """Return the cases that are about numbers."""
    with _quiet():
        found = load_model_tests(kind="node")
    return tuple(
        case
        for case in found
        if case.model is not None
        and _is_asked_for(case.model)
        and not case.name.startswith("test_training")
    )


def run_case(case: TestCase) -> Outcome:
    """Run one case, and say what was wrong."""
    assert case.model is not None
    operators = frozenset(node.op_type for node in case.model.graph.node)
    try:
        fault = _fault(case)
    except ModelError as error:
        fault = str(error)
    except Exception as error:  # noqa: BLE001 - a fault of ours is what is looked for
        fault = f"{type(error).__name__}: {error}"
    return Outcome(name=case.name, operators=operators, fault=fault)


def _is_asked_for(model: onnx.ModelProto) -> bool:
    values = (*model.graph.input, *model.graph.output)
    kinds = {value.type.WhichOneof("value") for value in values}
    texts = any(value.type.tensor_type.elem_type == TensorProto.STRING for value in values)
    domains = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    operators = {node.op_type for node in model.graph.node}
    odd = operators & _LEFT_OUT or any(
        word in name for name in operators - {"ReverseSequence"} for word in _LEFT_OUT_WORDS
    )
    return kinds == {"tensor_type"} and not (texts or domains or odd)


def _fault(case: TestCase) -> str:
    assert case.model is not None
    assert case.data_sets is not None
    ((inputs, outputs), *_) = case.data_sets
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    versions_of(model)
    given = {value.name: value for value in model.graph.input}
    tensors = {
        name: _tensor(value, kind=given[name].type.tensor_type.elem_type)
        for name, value in zip(given, inputs, strict=False)
        if value is not None
    }
    constants = {each.name: _tensor(each, kind=each.data_type) for each in model.graph.initializer}
    loaded = from_structure(model, constants=constants, types={}, settings={})
    with torch.no_grad():
        found = loaded.module(tensors)
    for (name, value), expected in zip(found.items(), outputs, strict=True):
        fault = _difference(value, expected, case=case)
        if fault:
            return f"output {name!r}: {fault}"
    return ""


def _tensor(value: Any, *, kind: int) -> Tensor:  # noqa: ANN401 - an array or a message
    array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
    return from_array(array, data_type=kind, name="input")


def _difference(value: Tensor, expected: Any, *, case: TestCase) -> str:  # noqa: ANN401 - as above
    wanted = expected if isinstance(expected, TensorProto) else None
    array = numpy_helper.to_array(wanted) if wanted is not None else np.asarray(expected)
    if tuple(value.shape) != array.shape:
        return f"shape {tuple(value.shape)}, expected {array.shape}"
    found = _plain(value)
    rtol = max(case.rtol, _STEP.get(value.dtype, 0.0))
    largest = np.abs(array, dtype=np.float64).max() if array.size and array.dtype.kind == "f" else 0
    atol = max(case.atol, 1e-7, 1e-6 * largest if np.isfinite(largest) else 0.0)
    right = array.astype(found.dtype) if array.dtype != found.dtype else array
    try:
        np.testing.assert_allclose(found, right, rtol=rtol, atol=atol)
    except AssertionError as error:
        return " ".join(str(error).split())[:200]
    return ""


def _plain(value: Tensor) -> np.ndarray:
    small = value.is_floating_point() and value.dtype not in (torch.float32, torch.float64)
    return (value.float() if small else value).numpy()
