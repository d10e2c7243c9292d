"""A format is offered where some base can hold it, and formats that none can are refused."""

import pytest

from mpsearch.core.hardware import Support
from mpsearch.errors import FormatError
from mpsearch.workflow.offered import offered

_NONE, _STORED, _NATIVE = Support.NONE, Support.STORAGE, Support.NATIVE


def test_what_any_base_can_hold_is_offered_once_and_bases_never() -> None:
    fp32 = {"a": {"fp32": _NATIVE, "w8": _NONE, "w4": _STORED}, "b": {"fp32": _NATIVE}}
    bf16 = {"a": {"bf16": _NATIVE, "w8": _NATIVE, "w4": _NATIVE}, "b": {"bf16": _NATIVE}}
    found = offered([fp32, bf16], runtime="openvino", formats=["w8", "w4"], examples=["w8"])
    assert found == {"a": ("w4", "w8"), "b": ()}


def test_formats_that_no_layer_can_take_name_runtime_formats_and_others() -> None:
    support = {"a": {"fp32": _NATIVE, "w8": _NONE}, "b": {"fp32": _NATIVE, "w8": _NONE}}
    with pytest.raises(
        FormatError, match="'openvino' can run none of the 2 layers in w8"
    ) as caught:
        offered([support], runtime="openvino", formats=["w8"], examples=["w8a8", "w4g128"])
    assert "such as w8a8, w4g128" in str(caught.value)
