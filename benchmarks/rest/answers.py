"""How fast the service answers, and whether as documented."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.bar import Bar, judged
from benchmarks.rest.contract import contract_failures
from benchmarks.rest.server import Server, SmallModel
from benchmarks.rest.targets import TARGETS
from mpsearch.core.files import save_table
from mpsearch.core.hardware import Device, Resource, Support
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.tables import CostTable, SensitivityTable

_LAYERS: Final = 560
_FORMATS: Final = ("fp32", "w8a8", "w8", "w4g128", "w4")
_BITS: Final = np.array([32, 8, 8, 4, 4])
_QUANTIZER: Final = ActivationQuantizer(
    scale=0.01, zero_point=128, low=-1.28, high=1.27, method="made up", samples=1
)


def answers(*, small: bool) -> Iterator[Bar]:
    """Measure posting, solving again, and the contract, on one server."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        model = SmallModel(folder=place).write()
        with Server(place / "data", root=place) as server:
            job_id = server.post(model.request())
            server.ended(job_id)
            yield _post(server, model, count=10 if small else 100)
            write_tables(place / "data" / "jobs" / job_id / "result")
            yield _solve(server, job_id, count=10 if small else 100)
            found, made = contract_failures(
                server.url,
                job_id=job_id,
                examples=3 if small else 50,
                folder=place,
                is_whole=not small,
            )
            yield judged(
                "answers undocumented or faulty",
                [len(found)],
                target=TARGETS["answers undocumented or faulty"],
                extra={"requests": made, "found": found[:20]},
            )


def _post(server: Server, model: SmallModel, *, count: int) -> Bar:
    ids: list[str] = []

    def once() -> None:
        ids.append(server.post(model.request()))

    milliseconds = _timed(once, count=count)
    for job_id in ids:  # or they would compete with what is timed next
        server.client.post(f"/v1/jobs/{job_id}:cancel")
    for job_id in ids:
        server.ended(job_id)
    return _median("POST to 202, median", milliseconds)


def _solve(server: Server, job_id: str, *, count: int) -> Bar:
    shares = iter(np.linspace(15, 60, count + 1))

    def once() -> None:
        body = {"job": job_id, "budgets": {"weight_bytes": f"{next(shares):.2f}%"}}
        server.client.post("/v1/plans:solve", json=body).raise_for_status()

    return _median("re-solve of a stored table, median", _timed(once, count=count))


def _timed(once: Callable[[], None], *, count: int) -> list[float]:
    """Return the milliseconds of each call, the first call apart."""
    seen: list[float] = []
    for _ in range(count + 1):
        start = time.perf_counter()
        once()
        seen.append(1e3 * (time.perf_counter() - start))
    return seen


def _median(name: str, milliseconds: list[float]) -> Bar:
    first, *later = milliseconds
    extra: dict[str, Any] = {
        "first call": first,
        "count": len(later),
        "smallest": min(later),
        "largest": max(later),
    }
    return judged(name, [statistics.median(later)], target=TARGETS[name], extra=extra)


def write_tables(result: Path) -> None:
    """Put tables of as many layers as a large transformer in the place of the small ones."""
    generator = np.random.default_rng(0)
    names = tuple(f"layer.{place}" for place in range(_LAYERS))
    sizes = generator.integers(10_000, 4_000_000, size=(_LAYERS, 1))
    hurt = generator.lognormal(sigma=2, size=(_LAYERS, 1)) * np.array([0, 0.1, 0.05, 0.8, 1.0])
    hurt = hurt * generator.lognormal(sigma=0.3, size=hurt.shape)
    for path in result.glob("costs-*.npz"):
        path.unlink()
    save_table(
        SensitivityTable(
            layers=names,
            formats=_FORMATS,
            loss=hurt,
            stderr=hurt / 10,
            metric="made up",
            unit="",
            quantizers=dict.fromkeys(names, _QUANTIZER),
        ),
        result / "sensitivity.npz",
    )
    save_table(
        CostTable(
            layers=names,
            formats=_FORMATS,
            base="fp32",
            placement="layer_inputs",
            amount={Resource.WEIGHT_BYTES: sizes * _BITS // 8},
            constant={},
            support=((Support.NATIVE,) * len(_FORMATS),) * _LAYERS,
            device=Device(name="made up", runtime="simulation", threads=1),
        ),
        result / "costs-fp32-layer_inputs.npz",
    )
