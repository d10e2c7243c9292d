"""What oneDNN says is read as it is written, and only while somebody listens."""

import pytest
import torch

from mpsearch.runtimes.onednn_log import Executed, listening, parsed

_PRODUCT = (
    "onednn_verbose,v1,primitive,exec,cpu,matmul,brg_matmul:avx512_core_vnni,undef,"
    "src:u8:a:blocked:ab::f0 wei:s8::blocked:BA16a64b4a::f8:zpm2 dst:f32:a:blocked:ab::f0,,,32x3,1"
)


def test_types_and_implementation_are_those_of_the_line() -> None:
    found = Executed(
        kind="matmul", implementation="brg_matmul:avx512_core_vnni", source="u8", weight="s8"
    )
    assert parsed([_PRODUCT]) == [found]


@pytest.mark.parametrize(
    "line",
    [
        _PRODUCT.replace(",exec,", ",create:cache_miss,"),
        _PRODUCT.replace(",matmul,", ",reorder,"),
        _PRODUCT.replace("onednn_verbose,", ""),
        "onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:1",
        "",
    ],
)
def test_what_computes_no_layer_is_left_out(line: str) -> None:
    assert parsed([line]) == []


def test_a_line_without_weights_has_none() -> None:
    (found,) = parsed([_PRODUCT.replace("wei:s8::blocked:BA16a64b4a::f8:zpm2 ", "")])
    assert (found.source, found.weight) == ("u8", "")


def test_a_real_product_is_heard_inside_alone(capfd: pytest.CaptureFixture[str]) -> None:
    weight = torch.ones(8, 4, dtype=torch.int8)
    codes = torch.ones(2, 4, dtype=torch.uint8)
    packed = torch.ops.onednn.qlinear_prepack(weight, [2, 4])

    def multiply() -> None:
        torch.ops.onednn.qlinear_pointwise(
            codes, 0.5, 3, packed, torch.ones(8), torch.zeros(8, dtype=torch.int64), None,
            1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip

    with listening() as heard:
        multiply()
    multiply()
    assert [(each.kind, each.source, each.weight) for each in heard] == [("matmul", "u8", "s8")]
    print("after")  # noqa: T201 - what is looked for
    assert capfd.readouterr().out == "after\n"


def test_the_output_comes_back_after_a_fault(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), listening():
        _ = 1 / 0
    print("after")  # noqa: T201 - what is looked for
    assert capfd.readouterr().out == "after\n"
