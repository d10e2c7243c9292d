"""The peak of activation memory: predicted by liveness beside what a fresh process held."""

import logging
from typing import Final

from mpsearch.core.hardware import Workload
from mpsearch.core.verification import Verification
from mpsearch.cost.activation_memory import peak_activation_bytes
from mpsearch.cost.peak_memory import measured_peak_bytes
from mpsearch.errors import MeasurementError
from mpsearch.verification.deployment import Deployment

_LOG = logging.getLogger("mpsearch.verification")
_QUANTITY: Final = "peak activation memory"


def peak_rows(deployment: Deployment, *, device: str) -> tuple[Verification, ...]:
    """Return one row for the workload that is predicted to hold most, measured in a child process.

    Nothing is promised: kernels take scratch space that no file tells. No row where the
    runtime builds nothing, or this system counts no peaks; the log then says why.
    """
    if deployment.model is None:
        return ()
    plan = deployment.plan
    try:
        predicted = {
            workload.name: peak_activation_bytes(deployment.model, workload, base=plan.base)
            for workload in plan.workloads
        }
        largest = max(plan.workloads, key=lambda workload: predicted[workload.name])
        measured = measured_peak_bytes(
            deployment.model, workload=largest, threads=deployment.threads
        )
    except MeasurementError as error:
        _LOG.warning("No peak of activation memory is reported: %s", error)
        return ()
    return (
        Verification(
            quantity=_QUANTITY,
            unit="B",
            predicted=float(predicted[largest.name]),
            measured=float(measured),
            device=device,
            note=f"first inference of a fresh process, {_told(largest)}; scratch space of kernels "
            "is not forecast, so nothing is promised",
        ),
    )


def _told(workload: Workload) -> str:
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in workload.shapes.items())
    return f"workload {workload.name}: {shapes}"
