"""A torch module cannot carry quantised additions, and says so."""

from dataclasses import replace

import pytest

from mpsearch.core.placement import addend_keys
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import PlanError
from mpsearch.testing.networks import residual
from mpsearch.workflow.apply import apply


def test_a_plan_of_quantised_additions_is_refused_and_others_are_not() -> None:
    module, _ = residual()
    quantizer = ActivationQuantizer(
        scale=0.1, zero_point=0, low=0.0, high=25.5, method="minmax", samples=1
    )
    names = ("stem", "same", "depthwise", "wide", "head")
    plan = Plan(
        assignment=dict.fromkeys(names, "fp32"),
        placement="residual_adds",
        quantizers=dict.fromkeys(addend_keys("same"), quantizer),
    )
    with pytest.raises(PlanError, match="1 residual additions, such as that of 'same'"):
        apply(module, plan)
    apply(module, replace(plan, quantizers={}))
