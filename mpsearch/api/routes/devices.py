"""What there is to measure on, and whether the server answers."""

import shutil
import time
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mpsearch.api.models import DeviceList, DeviceResource, Health, Readiness, moment
from mpsearch.api.observed import SECONDS_OF_LIFE
from mpsearch.api.problems import documented
from mpsearch.api.service import TheService
from mpsearch.jobs.queue import QUEUE

router = APIRouter(tags=["server"])

# Less, and the database could not grow while a job runs.
_LEAST_ROOM: Final = 100 * 2**20


@router.get("/v1/devices", summary="Devices")
def get_devices(service: TheService) -> DeviceList:
    """Return every device that a worker has reported, with its runtimes, bases and formats."""
    return DeviceList(devices=[_resource(device) for device in service.fleet.devices()])


@router.get("/healthz", summary="Health")
def get_health() -> Health:
    """Say that the server answers."""
    return Health(status="ok")


@router.get("/readyz", summary="Readiness", responses=documented(503))
def get_readiness(service: TheService) -> Readiness:
    """Say that the database answers and that there is room for uploads; count the workers."""
    free = shutil.disk_usage(service.settings.data.path).free
    now = time.time()
    workers = service.fleet.workers()  # the database answers, or this is a fault
    if free < _LEAST_ROOM:
        raise HTTPException(503)
    alive = sum(now - worker.seen < SECONDS_OF_LIFE for worker in workers)
    return Readiness(status="ready", workers=alive, free_bytes=free)


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=Response,
    responses={
        200: {
            "description": "For Prometheus.",
            "content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}},
        }
    },
)
def get_metrics(request: Request) -> Response:
    """Return requests, jobs and workers, counted. Needs a key of scope `metrics`."""
    text = generate_latest(request.app.state.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _resource(device: dict[str, Any]) -> DeviceResource:
    # Those of an earlier version did not say their queue.
    return DeviceResource(**{"queue": QUEUE, **device, "seen": moment(device["seen"])})
