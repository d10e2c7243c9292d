"""What of a job can be taken home, by the API's own addresses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

# (end of the address, name of the file, what it is, the file that it needs).
_OFFERED: Final = (
    ("plan", "plan.json", "Plan", "plan.json"),
    ("model", "model.onnx", "Model, ONNX", "model.onnx"),
    ("report", "", "Report", "report.html"),
    ("frontier", "frontier.json", "Front", "frontier.json"),
    ("verification", "verification.json", "Proof", "verification.json"),
    ("sensitivity", "sensitivity.json", "Sensitivity table", "sensitivity.npz"),
    ("costs", "costs.json", "Cost tables", "sensitivity.npz"),
)


@final
@dataclass(frozen=True, kw_only=True)
class Download:
    """A link; without a `filename` it is a page."""

    title: str
    address: str
    filename: str


def downloads_of(job_id: str, *, folder: Path) -> tuple[Download, ...]:
    """Return what there is; simulations have no model."""
    return tuple(
        Download(title=title, address=f"/v1/jobs/{job_id}/{end}", filename=filename)
        for end, filename, title, needed in _OFFERED
        if (folder / needed).is_file()
    )
