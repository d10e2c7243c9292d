"""A trained model in: a module, a folder or an ONNX file becomes a graph and its layers."""

from mpsearch.tracing.base_onnx import base_onnx
from mpsearch.tracing.folder import LoadedModel, load_folder
from mpsearch.tracing.onnx_import.model import OnnxModel, load_onnx
from mpsearch.tracing.onnx_model import trace_onnx
from mpsearch.tracing.trace import trace_model, trace_program
from mpsearch.tracing.traced_model import TracedModel

__all__ = [
    "LoadedModel",
    "OnnxModel",
    "TracedModel",
    "base_onnx",
    "load_folder",
    "load_onnx",
    "trace_model",
    "trace_onnx",
    "trace_program",
]
