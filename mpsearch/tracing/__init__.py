"""A trained model in: a torch module or a folder becomes a graph, its layers and an ONNX file."""

from mpsearch.tracing.base_onnx import base_onnx
from mpsearch.tracing.folder import LoadedModel, load_folder
from mpsearch.tracing.trace import trace_model
from mpsearch.tracing.traced_model import TracedModel

__all__ = ["LoadedModel", "TracedModel", "base_onnx", "load_folder", "trace_model"]
