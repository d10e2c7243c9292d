"""Turn a plan into a file that a runtime reads: one exporter per file."""

import onnx

from mpsearch.core.plan import Plan
from mpsearch.export.exporter import AbstractExporter
from mpsearch.export.qdq_onnx import QdqOnnx
from mpsearch.export.weight_bytes import weight_bytes

EXPORTERS: dict[str, AbstractExporter] = {"qdq_onnx": QdqOnnx()}


def export_plan(base: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    """Return the plan's executable: `base` with each layer in its format, explicit QDQ."""
    return EXPORTERS["qdq_onnx"].export(base, plan)


__all__ = ["EXPORTERS", "AbstractExporter", "export_plan", "weight_bytes"]
