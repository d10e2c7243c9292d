"""Laws of every runtime: inherit the suite and say which runtime it is for."""

from abc import ABC, abstractmethod
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar, Final

import numpy as np
import onnx
import pytest
import torch

from mpsearch.core.cache import Cache
from mpsearch.core.formats import FORMATS, format_named
from mpsearch.core.graph import Op, second_input
from mpsearch.core.hardware import Support, Workload
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import (
    DataError,
    FormatError,
    UnsupportedFeatureError,
    UsageError,
)
from mpsearch.execution import quantised, run
from mpsearch.export import export_plan
from mpsearch.runtimes import AbstractExecutable, AbstractRuntime, agrees_with_simulation
from mpsearch.testing.networks import Network, residual, transformer, upscaling
from mpsearch.testing.small_onnx import ROWS, SmallModel, small_layers, small_model
from mpsearch.tracing import TracedModel, base_onnx, trace_model

_SHAPES: Final = ((1, 5), (1, 40), (3, 17))
_MANY: Final = 4096  # threads that no machine has
_KIND_OF: Final = {"table": Op.EMBEDDING}


# Images of unit variance, and what comes behind a ReLU.
_RANGE: Final = ActivationQuantizer(
    scale=0.03125, zero_point=96, low=-3.0, high=4.96875, method="minmax", samples=1
)
# Inputs of a product, whose kernels take no offsets.
_CENTRED: Final = ActivationQuantizer(
    scale=0.03125, zero_point=128, low=-4.0, high=4.0, method="minmax", samples=1
)


class RuntimeLaws(ABC):
    """What running plans must keep true, on whatever device."""

    stored_alone: ClassVar[frozenset[Op]] = frozenset()
    """Kinds of layers that the runtime computes in its base alone."""

    @abstractmethod
    def runtime(self) -> AbstractRuntime:
        """Return the runtime under test; one that builds executables."""

    def test_what_is_claimed_runs_with_its_kernel_and_right_numbers(self) -> None:
        model, runtime = small_model(), self.runtime()
        for base in runtime.bases:
            for plan in self._claimed_plans(model, base):
                dynamic = self._built(model, plan)
                dynamic.assert_kernels(plan)
                for batch, length in _SHAPES:
                    static = self._built(model, plan, shape=(batch, length))
                    static.assert_kernels(plan)
                    for executable in (dynamic, static):
                        self._assert_numbers(executable, model, plan=plan, shape=(batch, length))

    @pytest.mark.parametrize("network", [residual, upscaling])
    def test_what_is_claimed_of_convolutions_runs_with_right_numbers(
        self, network: Network
    ) -> None:
        runtime = self.runtime()
        traced, base_file = _exported(network)
        example = traced.example
        shape = (3, *example["image"].shape[1:])
        batch = {"image": torch.randn(shape, generator=torch.Generator().manual_seed(0))}
        plain = _numbers(run(traced, batch))
        for base in runtime.bases:
            for assignment in _claimed_of(traced, runtime=runtime, base=base):
                plan = Plan(
                    assignment=assignment,
                    base=base,
                    runtime=runtime.name,
                    settings=runtime.settings(base),
                    quantizers=dict.fromkeys(traced.graph.names, _RANGE),
                )
                built = runtime.build(
                    export_plan(base_file, plan),
                    settings=plan.settings,
                    workload=Workload(name="w", shapes={"image": shape}),
                )
                built.assert_kernels(plan)
                found = built.run({"image": batch["image"].numpy()})
                with quantised(traced, plan) as simulated:
                    expected = _numbers(run(simulated, batch))
                check = agrees_with_simulation(
                    {"output": next(iter(found.values()))}, simulated=expected, plain=plain
                )
                assert check.error < max(0.5 * check.noise, 0.02), (assignment, base, check)

    def test_what_is_claimed_of_products_runs_with_right_numbers(self) -> None:
        runtime, names = self.runtime(), ("base", *self.runtime().product_formats)
        traced, base_file = _exported(transformer, has_products=True)
        example = traced.example
        plain = run(traced, example)["logits"].numpy()
        given = {name: value.numpy() for name, value in example.items()}
        for base, name in ((base, name) for base in runtime.bases for name in names):
            chosen = _products_in(traced, name=name, runtime=runtime, base=base)
            plan = Plan(
                assignment=dict.fromkeys(traced.graph.names, base) | chosen,
                base=base,
                runtime=runtime.name,
                settings=runtime.settings(base),
                quantizers=dict.fromkeys(_inputs_of_products(traced), _CENTRED),
            )
            built = runtime.build(export_plan(base_file, plan), settings=plan.settings)
            found = next(iter(built.run(given).values()))
            built.assert_kernels(plan)
            with quantised(traced, plan) as simulated:
                expected = run(simulated, example)["logits"].numpy()
            check = agrees_with_simulation(
                {"output": found}, simulated={"output": expected}, plain={"output": plain}
            )
            assert check.error < max(0.5 * check.noise, 0.02), (plan.assignment, base, check)

    def test_some_format_is_native_for_each_kind_of_layer(self) -> None:
        runtime = self.runtime()
        for layer in small_layers():
            assert layer.op in self.stored_alone or any(
                runtime.support(layer, name, base=base) is Support.NATIVE
                for name in runtime.formats
                for base in runtime.bases
            )

    def test_the_base_is_native_and_other_bases_are_not(self) -> None:
        runtime = self.runtime()
        for layer in small_layers():
            for base in runtime.bases:
                for name, format_ in FORMATS.items():
                    if format_.is_floating:
                        expected = Support.NATIVE if name == base else Support.NONE
                        assert runtime.support(layer, name, base=base) is expected

    def test_support_is_remembered(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        runtime, cache = self.runtime(), Cache(folder=tmp_path_factory.mktemp("cache"))
        layer, name = small_layers()[0], self.runtime().formats[0]
        first = runtime.support(layer, name, base="fp32", cache=cache)
        assert cache.sizes()["support"][0] == 1
        assert runtime.support(layer, name, base="fp32", cache=cache) is first
        assert cache.sizes()["support"][0] == 1
        for place, (other, base) in enumerate(
            (other, base)
            for base in runtime.bases
            for other in runtime.formats
            if (other, base) != (name, "fp32")
        ):
            runtime.support(layer, other, base=base, cache=cache)
            assert cache.sizes()["support"][0] == place + 2

    def test_repeating_changes_nothing(self) -> None:
        model = small_model()
        executable = self._built(model, self._plain(model), shape=(2, 5))
        first = executable.run(model.inputs())
        kept = {name: array.copy() for name, array in first.items()}
        for _ in range(3):
            executable.infer()
        executable.run({"ids": (model.inputs()["ids"] + 1) % ROWS})
        again = executable.run(model.inputs())
        for name, array in kept.items():
            np.testing.assert_array_equal(first[name], array)  # a copy, not the runtime's memory
            np.testing.assert_array_equal(again[name], array)

    def test_node_times_cover_the_layers_and_need_a_profile(self) -> None:
        model = small_model()
        plan = self._plain(model)
        with pytest.raises(UsageError, match="profile=True"):
            self._built(model, plan).node_times()
        executable = self._built(model, plan, shape=(1, 8), profile=True)
        executable.run(model.inputs(1, 8))
        for _ in range(5):
            executable.infer()
        times = executable.node_times()
        assert {layer for node in times for layer in node.layers} == set(model.layers)
        assert all(node.seconds >= 0 for node in times)

    def test_wrong_inputs_are_refused(self) -> None:
        model = small_model()
        executable = self._built(model, self._plain(model), shape=(1, 8))
        for wrong in (
            {},
            {"ids": model.inputs(1, 8)["ids"], "more": np.zeros(1)},
            model.inputs(1, 9),
            {"ids": np.zeros((1, 8), dtype=np.float32)},
        ):
            with pytest.raises(DataError):
                executable.run(wrong)

    def test_wrong_requests_are_refused(self) -> None:
        model, runtime = small_model(), self.runtime()
        plan = self._plain(model)
        exported = export_plan(model.onnx(), plan)
        settings = runtime.settings("fp32")
        for threads in (0, _MANY):
            with pytest.raises(UsageError, match="threads"):
                runtime.build(exported, settings=settings, threads=threads)
        with pytest.raises(UsageError, match="Workload"):
            runtime.build(
                exported, settings=settings, workload=Workload(name="w", shapes={"stranger": (1,)})
            )
        with pytest.raises(FormatError):
            runtime.support(small_layers()[0], "w99", base="fp32")
        with pytest.raises(UnsupportedFeatureError):
            runtime.support(small_layers()[0], "w8", base="fp64")

    def test_the_device_names_runtime_threads_and_versions(self) -> None:
        device = self.runtime().device(1)
        assert device.runtime == self.runtime().name
        assert device.threads == 1
        assert device.name
        assert device.software

    def _claimed_plans(self, model: SmallModel, base: str) -> tuple[Plan, ...]:
        """Return one plan per claimed format, and one that mixes them all."""
        runtime = self.runtime()
        claimed = {
            layer.op: [
                name
                for name in runtime.formats
                if runtime.support(layer, name, base=base) is not Support.NONE
            ]
            for layer in small_layers()
        }
        uniform = [
            {
                name: format_name if format_name in claimed[_KIND_OF.get(name, Op.LINEAR)] else base
                for name in model.layers
            }
            for format_name in runtime.formats
        ]
        linear = [*claimed[Op.LINEAR], base]
        mixed = {
            name: linear[place % len(linear)] for place, name in enumerate(model.layers[1:])
        } | {"table": claimed[Op.EMBEDDING][0]}
        return tuple(
            model.plan(assignment, base=base)
            for assignment in (dict.fromkeys(model.layers, base), *uniform, mixed)
        )

    def _plain(self, model: SmallModel) -> Plan:
        return model.plan(dict.fromkeys(model.layers, "fp32"))

    def _built(
        self,
        model: SmallModel,
        plan: Plan,
        *,
        shape: tuple[int, int] | None = None,
        profile: bool = False,
    ) -> AbstractExecutable:
        runtime = self.runtime()
        return runtime.build(
            export_plan(model.onnx(), plan),
            settings=runtime.settings(plan.base),
            workload=None if shape is None else Workload(name="w", shapes={"ids": shape}),
            profile=profile,
        )

    def _assert_numbers(
        self,
        executable: AbstractExecutable,
        model: SmallModel,
        *,
        plan: Plan,
        shape: tuple[int, int],
    ) -> None:
        inputs = model.inputs(*shape)
        check = agrees_with_simulation(
            executable.run(inputs),
            simulated=model.forward(plan, inputs),
            plain=model.forward(self._plain(model), inputs),
        )
        assert check.passed, (plan.assignment, plan.base, shape, check)
        if all(format_named(name).is_floating for name in plan.assignment.values()):
            return
        # Shallow as it is, the model shows a wrong scale or zero point at once.
        assert check.error < max(0.5 * check.noise, 0.02), (plan.assignment, plan.base, check)


@cache
def _exported(
    network: Network, *, has_products: bool = False
) -> tuple[TracedModel, onnx.ModelProto]:
    """Return a network and its base file, which every runtime reads and none changes."""
    traced = trace_model(*network(), has_products=has_products)
    return traced, base_onnx(traced)


def _claimed_of(
    traced: TracedModel, *, runtime: AbstractRuntime, base: str
) -> list[dict[str, str]]:
    """Return the base, each format wherever it is claimed, and neighbours of these in turns."""
    layers = traced.graph.layers
    uniform = [dict.fromkeys(traced.graph.names, base)]
    for name in runtime.formats:
        takes = {
            layer.name: runtime.support(layer, name, base=base) is not Support.NONE
            for layer in layers
        }
        uniform.append({layer: name if taken else base for layer, taken in takes.items()})
    return uniform + [
        {layer: (one, other)[place % 2][layer] for place, layer in enumerate(traced.graph.names)}
        for one, other in pairwise([*uniform, uniform[0]])
    ]


def _products_in(
    traced: TracedModel, *, name: str, runtime: AbstractRuntime, base: str
) -> dict[str, str]:
    """Return the products of a model in a format, which the runtime must run as it claims."""
    products = [layer for layer in traced.graph.layers if layer.op is Op.PRODUCT]
    assert products
    if name == "base":
        return {}
    for layer in products:
        assert runtime.support(layer, name, base=base) is Support.NATIVE
        assert runtime.support(layer, "w8a8", base=base) is Support.NONE
    return {layer.name: name for layer in products}


def _inputs_of_products(traced: TracedModel) -> list[str]:
    names = [layer.name for layer in traced.graph.layers if layer.op is Op.PRODUCT]
    return [*names, *map(second_input, names)]


def _numbers(raw: Any) -> dict[str, np.ndarray]:  # noqa: ANN401 - models return tensors or more
    return {"output": raw.numpy()}
