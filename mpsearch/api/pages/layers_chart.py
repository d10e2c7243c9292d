"""The layers of a chosen plan: format, sensitivity and cost of each, as chart and as table."""

from collections.abc import Mapping
from typing import Any

from mpsearch.api.pages.result import Result
from mpsearch.core.plan import Plan
from mpsearch.report.layers import LayerView, layer_view
from mpsearch.report.palette import Swatch


def layers_of(result: Result, plan: Plan) -> LayerView:
    """Return the layers in order of execution, in the numbers of the report."""
    return layer_view(
        plan,
        sensitivity=result.sensitivity,
        cost=result.cost_of(plan),
        graph=result.summary.graph,
    )


def layers_drawing(layers: LayerView, *, swatches: Mapping[str, Swatch]) -> dict[str, Any]:
    """Return what the script draws: colours, lanes of bars in percent, a text for each layer."""
    rows = layers.rows
    lanes: list[dict[str, Any]] = [
        {"title": "Loss", "from": [0.0] * len(rows), "to": [row.height for row in rows]}
    ]
    for resource, title in layers.resources.items():
        bars = [row.costs[resource] for row in rows]
        lanes.append(
            {
                "title": title,
                "from": [bar.left for bar in bars],
                "to": [bar.left + bar.width for bar in bars],
            }
        )
    return {
        "colours": [swatches[row.format].key for row in rows],
        "texts": [row.summary for row in rows],
        "lanes": lanes,
    }
