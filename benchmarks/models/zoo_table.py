"""Print a Markdown table of the lines that `python -m benchmarks models` printed.

`python -m benchmarks.models.zoo_table LINES` reads them from a file.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.models.zoo import SEARCHED

_MEBI: Final = 2**20
_HEAD: Final = (
    "model", "layers", "parameters", "mean bits", "loss: plan, w4 everywhere", "ratio",
    "fidelity: plan, w4", "quality: fp32, plan, w4", "promises", "seconds", "peak MiB",
)  # fmt: skip


def table(lines: list[dict[str, Any]]) -> str:
    """Return one row for each model that a line is about."""
    rows = [
        _HEAD,
        tuple("---" for _ in _HEAD),
        *(_row(line) for line in lines if line["bar"].startswith(SEARCHED)),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    found = line["extra"]
    kinds = [found[kind] for kind in ("plan", "one_format")]
    return (
        f"`{found['model']}`",
        str(found["layers"]),
        f"{found['parameters']:,}",
        str(found["mean_bits"]),
        ", ".join(f"{each['loss']:.3g}" for each in kinds),
        f"{line['value']:.2f}",
        _measures([each["fidelity"] for each in kinds]),
        _measures([each["quality"] for each in (found["full_precision"], *kinds)]),
        "all kept" if not found["missed"] else f"missed: {', '.join(found['missed'])}",
        f"{found['seconds']:.0f}",
        f"{found['peak_bytes'] / _MEBI:.0f}",
    )


def _measures(kinds: list[dict[str, float]]) -> str:
    return "; ".join(
        f"{name} {', '.join(f'{each[name]:.4g}' for each in kinds)}" for name in kinds[0]
    )


if __name__ == "__main__":
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    print(table([json.loads(line) for line in text.splitlines() if line.strip()]))
