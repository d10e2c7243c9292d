"""Write the report: geometry is computed here, the template only draws."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpsearch.core.files import write_atomically
from mpsearch.core.graph import LayerGraph
from mpsearch.core.plan import Plan
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.core.verification import Verification
from mpsearch.errors import MissingPackageError
from mpsearch.report.front import FrontPointLike, front_view
from mpsearch.report.layers import LayerView, layer_view, title_of
from mpsearch.report.numbers import ABSENT, TIMES, plain, seconds, share
from mpsearch.report.palette import swatches
from mpsearch.report.proof import (
    budget_views,
    formats_of,
    headlines,
    promise_views,
    reason,
    resources_of,
    rival_views,
)
from mpsearch.report.tried import JudgedLike, TriedPlan, tried_plan


def write_report(
    path: Path,
    *,
    plan: Plan,
    sensitivity: SensitivityTable | None = None,
    costs: Sequence[CostTable] | CostTable | None = None,
    verification: Sequence[Verification] = (),
    tried: Sequence[JudgedLike | TriedPlan] = (),
    front: Sequence[FrontPointLike] = (),
    graph: LayerGraph | None = None,
    phases: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write one HTML file that needs nothing else: no script, no font, no request.

    Whatever is not given is left out. Names are escaped, and the page forbids scripts.

    Args:
        path: Where the file goes.
        plan: The plan that was returned.
        sensitivity: Loss per layer and format.
        costs: Cost tables; the one of the plan's base and placement is shown.
        verification: Promised and measured quantities.
        tried: Every plan that was built, as judged by the search or as plain data.
        front: Least predicted loss at several limits of the first budget's resource.
        graph: The layers, for their order, shapes and sizes.
        phases: Seconds by phase of the search.
        notes: Sentences for the reader.

    Raises:
        MissingPackageError: jinja2 is not installed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_report(folder / "report.html", plan=Plan(assignment={"fc": "w8"}))
        >>> "<title>" in (folder / "report.html").read_text()
        True
    """
    plans = [tried_plan(each) for each in tried]
    layers = layer_view(plan, sensitivity=sensitivity, cost=_cost_of(plan, costs), graph=graph)
    formats = [*plan.assignment.values(), plan.base, *(sensitivity.formats if sensitivity else ())]
    budgets = budget_views(plan, verification=verification, tried=plans)
    html = page_template("report.html").render(
        plan=plan,
        layers=layers,
        swatches=swatches(formats),
        parts=_parts(layers),
        budgets=budgets,
        promises=promise_views(verification),
        rivals=rival_views(plan, tried=plans),
        rival_columns=[title_of(name) for name in resources_of(plan)],
        front=front_view(plan, front=front, tried=plans),
        reason=reason(plan, tried=plans),
        headlines=headlines(plan, budgets=budgets, verification=verification),
        phases=_phases(phases or {}),
        notes=[note for note in notes if note],
        facts=_facts(plan, sensitivity=sensitivity),
    )
    write_atomically(path, html.encode())


def page_template(name: str) -> Any:  # noqa: ANN401 - a jinja2 template, which is optional at import
    """Return a page's template; whatever is put into it is escaped.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "Writing a report needs the package 'jinja2', which is not installed. Expected the "
            "extra 'search'. Run: pip install 'mpsearch[search]'."
        ) from error
    environment = Environment(
        loader=PackageLoader("mpsearch.report"),
        # Layer names come from other people's files.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["absent"] = ABSENT
    environment.filters |= {
        "formats": formats_of,
        "plain": plain,
        "share": share,
        "title": title_of,
    }
    return environment.get_template(name)


def _cost_of(plan: Plan, costs: Sequence[CostTable] | CostTable | None) -> CostTable | None:
    """Return the table of the plan's base and placement."""
    if costs is None or isinstance(costs, CostTable):
        return costs
    wanted = (plan.base, plan.placement)
    return next((cost for cost in costs if (cost.base, cost.placement) == wanted), None)


def _parts(layers: LayerView) -> list[tuple[str, int, float]]:
    """Return (format, layers, share of the numbers or else of the layers), the largest first."""
    total = len(layers.rows) or 1
    shares = layers.parameters or {name: count / total for name, count in layers.counts.items()}
    parts = [(name, count, shares[name]) for name, count in layers.counts.items()]
    return sorted(parts, key=lambda part: -part[2])


def _phases(phases: Mapping[str, float]) -> list[tuple[str, str, float]]:
    """Return (phase, duration, percent of all), without what took no time."""
    total = sum(phases.values()) or 1.0
    return [
        (name, seconds(spent), round(100 * spent / total, 3))
        for name, spent in phases.items()
        if spent >= 0.05  # noqa: PLR2004 - shown as 0.0 s
    ]


def _facts(plan: Plan, *, sensitivity: SensitivityTable | None) -> list[tuple[str, str]]:
    """Return where the plan comes from, as names and values."""
    origin = plan.provenance
    workloads = "; ".join(
        f"{workload.name}: "
        + ", ".join(
            f"{name} {f' {TIMES} '.join(map(str, shape))}"
            for name, shape in workload.shapes.items()
        )
        for workload in plan.workloads
    )
    facts = {
        "Origin of the plan": plan.origin,
        "Model": plan.model,
        "Data": origin.data or (sensitivity.provenance.data if sensitivity else ""),
        "Calibration samples": f"{sensitivity.samples:,}" if sensitivity else "",
        "Sensitivity": f"{sensitivity.metric}, {sensitivity.unit}" if sensitivity else "",
        "Runtime": plan.runtime,
        "Placement": plan.placement.replace("_", " "),
        "Settings": ", ".join(f"{name}={value}" for name, value in plan.settings.items()),
        "Workloads": workloads,
        "Device": origin.device,
        "Software": ", ".join(f"{name} {version}" for name, version in origin.versions.items()),
        "Seed": str(origin.seed),
        "Created": origin.created,
    }
    return [(name, value) for name, value in facts.items() if value]
