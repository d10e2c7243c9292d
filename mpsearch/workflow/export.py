"""Write the executable of a plan: the ONNX file that the plan's runtime opens."""

from pathlib import Path

from mpsearch.core.files import write_atomically
from mpsearch.core.plan import Plan
from mpsearch.errors import PlanError
from mpsearch.export import EXPORTERS
from mpsearch.tracing import TracedModel, base_onnx
from mpsearch.workflow.prepare import ModelSource, names_products, traced_source
from mpsearch.workflow.reading import DataSource


def export(
    model: ModelSource,
    plan: Plan,
    *,
    path: Path,
    example: DataSource | None = None,
    exporter: str = "qdq_onnx",
) -> None:
    """Write the plan of a model as a file; `example` is needed for a plain torch module.

    Raises:
        PlanError: The plan belongs to another model, or needs no file.
    """
    if plan.runtime == "simulation":
        raise PlanError(
            "The plan is of runtime 'simulation', which has no executable. Expected a plan of "
            "'openvino'. Search with runtime='openvino', or use mpsearch.apply."
        )
    traced = traced_source(model, example=example, has_products=names_products(plan))
    check_model(plan, traced)
    exported = EXPORTERS[exporter].export(base_onnx(traced), plan)
    write_atomically(path, exported.SerializeToString())


def check_model(plan: Plan, traced: TracedModel) -> None:
    """Refuse a plan that was made for another model.

    Raises:
        PlanError: Its layers or its fingerprint differ.
    """
    graph = traced.graph
    different = sorted(set(plan.assignment) ^ set(graph.names))
    if different:
        raise PlanError(
            f"The plan has {len(plan.assignment)} layers and the model {len(graph.layers)}; they "
            f"differ at {different[0]!r}. Expected a plan of this model. Search one for it."
        )
    if plan.model and plan.model != graph.fingerprint:
        raise PlanError(
            f"The plan was made for the model {plan.model[:12]}, this one is "
            f"{graph.fingerprint[:12]}: same layers, other weights or wiring. Expected the same "
            "model. Search a plan for this one."
        )
