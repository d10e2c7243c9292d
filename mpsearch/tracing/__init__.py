"""A trained model in: a torch module or a folder becomes a graph, its layers and an ONNX file."""

from mpsearch.tracing.base_onnx import base_onnx
from mpsearch.tracing.trace import trace_model
from mpsearch.tracing.traced_model import TracedModel

__all__ = ["TracedModel", "base_onnx", "trace_model"]
