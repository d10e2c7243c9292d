"""The runtimes by name, in order of preference."""

from mpsearch.runtimes.onnxruntime import OnnxRuntime
from mpsearch.runtimes.openvino import OpenVino
from mpsearch.runtimes.runtime import AbstractRuntime
from mpsearch.runtimes.simulation import Simulation
from mpsearch.runtimes.torch_cpu import TorchCpu
from mpsearch.runtimes.torch_cuda import TorchCuda

RUNTIMES: dict[str, AbstractRuntime] = {
    "openvino": OpenVino(),
    "onnxruntime": OnnxRuntime(),
    "torch": TorchCpu(),
    "torch_cuda": TorchCuda(),
    "simulation": Simulation(),
}
