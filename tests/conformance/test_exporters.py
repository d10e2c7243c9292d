"""Every registered exporter keeps the laws."""

from collections.abc import Mapping

import onnx
from numpy import ndarray
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from mpsearch.export import EXPORTERS, AbstractExporter
from mpsearch.export.graph_edit import LAYER_KEY, metadata
from mpsearch.runtimes import RUNTIMES
from mpsearch.testing.exporter_laws import ExporterLaws

_STORED = {TensorProto.INT4: "w4", TensorProto.INT8: "w8", TensorProto.FLOAT: "fp32"}


class TestQdqOnnx(ExporterLaws):
    """Read the formats back from the graph, run it by the standard's reference, load it."""

    def exporter(self) -> AbstractExporter:
        return EXPORTERS["qdq_onnx"]

    def load(self, model: onnx.ModelProto) -> object:
        onnx.checker.check_model(model, full_check=True)
        runtime = RUNTIMES["openvino"]
        return runtime.build(model, settings=runtime.settings("fp32"))

    def run(self, model: onnx.ModelProto, inputs: Mapping[str, ndarray]) -> dict[str, ndarray]:
        names = [output.name for output in model.graph.output]
        return dict(zip(names, ReferenceEvaluator(model).run(None, dict(inputs)), strict=True))

    def formats_in(self, model: onnx.ModelProto) -> dict[str, str]:
        producers = {name: node for node in model.graph.node for name in node.output}
        kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        found = {}
        for node in model.graph.node:
            layer = metadata(node.metadata_props).get(LAYER_KEY)
            if layer is None:
                continue
            slot = 0 if node.op_type == "Gather" else 1
            name, grouped = node.input[slot], False
            while name in producers:
                made_by = producers[name]
                grouped |= any(each.name == "block_size" for each in made_by.attribute)
                name = made_by.input[0]
            format_ = _STORED[kinds[name]] + ("g128" if grouped else "")
            source = producers.get(node.input[1 - slot])
            if source is not None and source.op_type == "DequantizeLinear":
                assert producers[source.input[0]].op_type == "QuantizeLinear"
                format_ += "a8"
            found[layer] = format_
        return found


def test_every_exporter_is_tested() -> None:
    assert set(EXPORTERS) == {"qdq_onnx"}
