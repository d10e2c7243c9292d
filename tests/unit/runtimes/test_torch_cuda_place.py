"""Programs that are moved hold nothing of the processor: proven on tensors without numbers."""

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from mpsearch.core.hardware import Workload
from mpsearch.core.plan import Plan
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.export import export_plan
from mpsearch.runtimes.torch_cuda import TorchCuda
from mpsearch.runtimes.torch_cuda_place import Cuda, this_gpu
from mpsearch.runtimes.torch_executable import TorchExecutable
from mpsearch.runtimes.torch_program import Program, record
from mpsearch.testing.networks import residual, upscaling
from mpsearch.testing.small_onnx import SmallModel, small_model
from mpsearch.tracing import base_onnx, trace_model

_HERE = TorchCuda(place="cpu")
_MIXED = {"table": "w8", "left": "fp8", "right": "w8a8", "out": "w4g128"}


def _mixed(model: SmallModel, *, base: str = "bf16") -> Plan:
    assignment = dict.fromkeys(model.layers, base) | _MIXED
    return model.plan(assignment | ({"out": base} if base == "fp32" else {}), base=base)


def _built(*, base: str = "bf16", shape: tuple[int, int] = (1, 8)) -> TorchExecutable:
    model = small_model()
    built = _HERE.build(
        export_plan(model.onnx(), _mixed(model, base=base)),
        settings=_HERE.settings(base),
        workload=Workload(name="w", shapes={"ids": shape}),
    )
    assert isinstance(built, TorchExecutable)
    return built


def _moved(built: TorchExecutable, place: Cuda) -> tuple[Program, tuple[Tensor, ...]]:
    """Move the only program of an executable to a GPU that is not there."""
    program, inputs = built._current()
    moved = place.placed(program, works=built._works)
    return moved, tuple(map(place.taken, inputs))


@pytest.mark.parametrize("base", ["fp32", "bf16"])
def test_a_program_of_all_formats_runs_on_the_gpu_alone(base: str) -> None:
    built = _built(base=base)
    with FakeTensorMode(allow_non_fake_inputs=True):
        program, inputs = _moved(built, Cuda(device="cuda:0"))
        held = [getattr(program.module, str(n.target)) for n in _constants(program)]
        assert all(each.device.type == "cuda" for each in held)
        found = program(*inputs)
    # Each operator was asked whether all it reads is in one place.
    assert all(isinstance(each, FakeTensor) and each.device.type == "cuda" for each in found)
    assert [tuple(each.shape) for each in found] == [(1, 8, 64), (1, 8, 40)]


@pytest.mark.parametrize("network", [residual, upscaling])
def test_convolutions_run_on_the_gpu_alone(network: object) -> None:
    assert callable(network)
    module, example = network()
    traced = trace_model(module, example)
    plan = Plan(assignment=dict.fromkeys(traced.graph.names, "bf16"), base="bf16")
    shape = (2, *example["image"].shape[1:])
    built = _HERE.build(
        export_plan(base_onnx(traced), plan),
        settings=_HERE.settings("bf16"),
        workload=Workload(name="w", shapes={"image": shape}),
    )
    assert isinstance(built, TorchExecutable)
    with FakeTensorMode(allow_non_fake_inputs=True):
        program, inputs = _moved(built, Cuda(device="cuda:0"))
        assert all(each.device.type == "cuda" for each in program(*inputs))


def test_weights_of_4_bits_are_packed_anew_for_the_gpu() -> None:
    built = _built()
    before = _operators(built._current()[0])
    assert "aten._weight_int4pack_mm_for_cpu.default" in before
    with FakeTensorMode(allow_non_fake_inputs=True):
        program, _ = _moved(built, Cuda(device="cuda:0"))
        found = _operators(program)
        assert "aten._weight_int4pack_mm_for_cpu.default" not in found
        (node,) = (
            n for n in program.module.graph.nodes if "_weight_int4pack_mm.default" in str(n.target)
        )
        packed = getattr(program.module, node.args[1].target)
        # [outputs / 8][inputs / (tiles x 16)][32][tiles / 2], with 8 tiles.
        assert tuple(packed.shape) == (64 // 8, 128 // 128, 32, 4)
        assert packed.dtype == torch.int32
    assert len(found) == len(before)


def test_programs_of_two_shapes_share_their_constants() -> None:
    place, built = Cuda(device="cuda:0"), _built()
    programs = []
    for length in (8, 9):
        ids = torch.zeros(1, length, dtype=torch.int64)
        with built._computing():
            programs.append(record(built._module, {"ids": ids}))
    matrices = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        for program in programs:
            place.placed(program, works=built._works)
            held = (getattr(program.module, str(n.target)) for n in _constants(program))
            matrices.append([id(each) for each in held if each.ndim > 1])
    assert len(matrices[0]) >= 5  # a table, three weights of few bits, and the head
    assert matrices[0] == matrices[1]


def test_views_of_one_constant_and_tensors_made_on_the_way_are_moved() -> None:
    square = torch.arange(9.0).reshape(3, 3)

    def compute(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = inputs["x"]
        return {"y": x @ square + x @ square.t() + x.new_zeros(3, device="cpu")}

    program = record(compute, {"x": torch.ones(2, 3)})
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved = Cuda(device="cuda:0").placed(program, works={})
        (found,) = moved(torch.ones(2, 3).to("cuda:0"))
        strides = [getattr(moved.module, str(n.target)).stride() for n in _constants(moved)]
    assert found.device.type == "cuda"
    assert sorted(strides) == [(1, 3), (3, 1)]


def test_kernels_are_named_by_their_operators() -> None:
    kernels = _built().kernels()
    words = {name: (each.precision, each.weight) for name, each in kernels.items()}
    assert words["left"] == ("f8", "f8")
    assert words["right"] == ("u8", "i8")
    assert words["out"] == ("i4", "i4")
    assert words["head"] == ("bf16", "bf16")
    assert "_scaled_mm" in kernels["left"].name


def test_nothing_counts_memory_on_the_processor() -> None:
    built = _built()
    assert built.own_peak_bytes() is None
    built.run({"ids": np.zeros((1, 8), dtype=np.int64)})
    assert built.own_peak_bytes() is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU")
def test_without_a_gpu_there_is_one_error_with_the_next_step() -> None:
    with pytest.raises(UnsupportedFeatureError, match=r"nvidia-smi.*'openvino'"):
        this_gpu()


def _constants(program: Program) -> list[torch.fx.Node]:
    return [node for node in program.module.graph.nodes if node.op == "get_attr"]


def _operators(program: Program) -> list[str]:
    nodes = program.module.graph.nodes
    return list(itertools.chain(str(n.target) for n in nodes if n.op == "call_function"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")
class TestOnAGpu:
    """What only a GPU shows: the same numbers, its clock, its memory."""

    def _built(self, shape: tuple[int, int]) -> TorchExecutable:
        model, runtime = small_model(), TorchCuda()
        built = runtime.build(
            export_plan(model.onnx(), _mixed(model)),
            settings=runtime.settings("bf16"),
            workload=Workload(name="w", shapes={"ids": shape}),
            profile=True,
        )
        assert isinstance(built, TorchExecutable)
        return built

    @pytest.mark.parametrize("shape", [(1, 1), (1, 8), (4, 33)])
    def test_numbers_are_those_of_the_processor(self, shape: tuple[int, int]) -> None:
        inputs = small_model().inputs(*shape)
        found, expected = self._built(shape).run(inputs), _built(shape=shape).run(inputs)
        for name, array in expected.items():
            error = np.linalg.norm(found[name] - array) / np.linalg.norm(array)
            assert error < 0.02, name  # sums of bfloat16 in another order move single codes

    def test_kernels_are_the_planned_ones(self) -> None:
        self._built((1, 8)).assert_kernels(_mixed(small_model()))

    def test_times_and_memory_are_counted(self) -> None:
        built = self._built((1, 8))
        built.run(small_model().inputs(1, 8))
        built.infer()
        times = built.node_times()
        assert {layer for node in times for layer in node.layers} == set(small_model().layers)
        assert all(node.seconds > 0 for node in times if node.layers)
        peak = built.own_peak_bytes()
        assert peak is not None
        assert 8 * 64 * 2 <= peak < 10**8

    def test_a_device_without_room_says_so(self) -> None:
        torch.cuda.set_per_process_memory_fraction(1e-6)
        try:
            with pytest.raises(Exception, match="no room"):
                self._built((512, 512)).run(small_model().inputs(512, 512))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
