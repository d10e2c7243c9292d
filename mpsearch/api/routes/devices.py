"""What there is to measure on, and whether the server answers."""

from typing import Any

from fastapi import APIRouter

from mpsearch.api.models import DeviceList, DeviceResource, Health, moment
from mpsearch.api.service import TheService

router = APIRouter(tags=["server"])


@router.get("/v1/devices", summary="Devices")
def get_devices(service: TheService) -> DeviceList:
    """Return every device that a worker has reported, with its runtimes, bases and formats."""
    return DeviceList(devices=[_resource(device) for device in service.fleet.devices()])


@router.get("/healthz", summary="Health")
def get_health() -> Health:
    """Say that the server answers."""
    return Health(status="ok")


def _resource(device: dict[str, Any]) -> DeviceResource:
    return DeviceResource(**{**device, "seen": moment(device["seen"])})
