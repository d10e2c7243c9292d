"""The runtimes by name, in order of preference."""

from mpsearch.runtimes.onnxruntime import OnnxRuntime
from mpsearch.runtimes.openvino import OpenVino
from mpsearch.runtimes.runtime import AbstractRuntime
from mpsearch.runtimes.simulation import Simulation

RUNTIMES: dict[str, AbstractRuntime] = {
    "openvino": OpenVino(),
    "onnxruntime": OnnxRuntime(),
    "simulation": Simulation(),
}
