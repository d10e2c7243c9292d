"""The routes, one file per thing that a caller deals with; a router each."""

from fastapi import APIRouter

from mpsearch.api.routes import blobs, devices, jobs, plans, results

ROUTERS: tuple[APIRouter, ...] = (
    jobs.router,
    results.router,
    blobs.router,
    plans.router,
    devices.router,
)
