"""Which kernel fits which format, exhaustively over what runtimes report."""

import pytest

from mpsearch.core.formats import format_named
from mpsearch.core.hardware import Support
from mpsearch.core.plan import Plan
from mpsearch.errors import DeploymentError
from mpsearch.runtimes import Kernel
from mpsearch.runtimes.kernel_check import check_kernels, found_support


def _kernel(precision: str, weight: str, type_: str = "FullyConnected") -> Kernel:
    return Kernel(type=type_, name="gemm", precision=precision, weight=weight)


@pytest.mark.parametrize(
    ("format_name", "base", "kernel", "expected"),
    [
        ("w8a8", "fp32", _kernel("u8", "i8"), Support.NATIVE),
        ("w8a8", "fp32", _kernel("i8", "i8"), Support.STORAGE),  # inputs were left float
        ("w8a8", "fp32", _kernel("f32", "f32"), Support.NONE),
        ("w8", "bf16", _kernel("i8", "i8"), Support.NATIVE),
        ("w8", "fp32", _kernel("f32", "i8"), Support.STORAGE),
        ("w8", "fp32", _kernel("f32", "f32"), Support.NONE),
        ("w8", "fp32", _kernel("i4", "i4"), Support.NONE),
        ("w4", "fp32", _kernel("i4", "i4", "Gather"), Support.NATIVE),
        ("w4g128", "fp32", _kernel("bf16", "i4"), Support.STORAGE),
        # Of a convolution the file alone has to be small, and its kernel must be the base's.
        ("w4", "fp32", _kernel("f32", "f32", "Convolution"), Support.STORAGE),
        ("w8", "bf16", _kernel("bf16", "f32", "Convolution"), Support.STORAGE),
        ("w8", "fp32", _kernel("f32", "f32", "FusedConv"), Support.STORAGE),
        ("w8", "bf16", _kernel("f32", "f32", "Convolution"), Support.NONE),
        ("w4", "fp32", _kernel("u8", "i8", "Convolution"), Support.NONE),
        ("w4", "fp32", _kernel("f32", "i8", "Convolution"), Support.NONE),
        ("w8", "fp32", _kernel("f32", "computed", "Convolution"), Support.NONE),
        ("w8a8", "fp32", _kernel("f32", "f32", "Convolution"), Support.NONE),
        ("w4", "fp32", _kernel("f32", "f32", "MatMul"), Support.NONE),
        ("fp32", "fp32", _kernel("f32", "f32"), Support.NATIVE),
        ("fp32", "fp32", _kernel("bf16", "f32"), Support.NONE),
        ("bf16", "bf16", _kernel("bf16", "f32"), Support.NATIVE),
        ("bf16", "bf16", _kernel("f32", "f32"), Support.NONE),
        ("bf16", "bf16", _kernel("f32", "f32", "Gather"), Support.NATIVE),
        ("w8", "fp32", Kernel.folded(), Support.NATIVE),
    ],
)
def test_support_is_what_the_kernel_works_on(
    format_name: str, base: str, kernel: Kernel, expected: Support
) -> None:
    assert found_support(format_named(format_name), kernel, base=base) is expected


def test_a_plan_that_runs_as_planned_passes() -> None:
    plan = Plan(assignment={"a": "w8a8", "b": "w8", "c": "fp32"})
    kernels = {
        "a": _kernel("u8", "i8"),
        "b": _kernel("f32", "i8"),  # small in memory is all that w8 promises
        "c": _kernel("f32", "f32"),
    }
    check_kernels(plan, kernels)


@pytest.mark.parametrize(
    ("format_name", "kernels", "words"),
    [
        ("w8a8", {"a": _kernel("i8", "i8")}, "u8 inputs"),
        ("w8", {"a": _kernel("f32", "f32")}, "weight kept as f32"),
        ("fp32", {"a": _kernel("bf16", "f32")}, "gemm on bf16"),
        ("w8", {}, "its kernel is none"),
    ],
)
def test_the_error_names_layer_expectation_and_kernel(
    format_name: str, kernels: dict[str, Kernel], words: str
) -> None:
    with pytest.raises(DeploymentError, match=r"Layer 'a'.*Expected") as caught:
        check_kernels(Plan(assignment={"a": format_name}), kernels)
    assert words in str(caught.value)
