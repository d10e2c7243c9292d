"""The routes, one file per thing that a caller deals with; a router each."""

from fastapi import APIRouter

from mpsearch.api.routes import blobs, devices, events, jobs, plans, results

ROUTERS: tuple[APIRouter, ...] = (
    jobs.router,
    events.router,
    results.router,
    blobs.router,
    plans.router,
    devices.router,
)
