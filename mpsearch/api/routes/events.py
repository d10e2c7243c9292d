"""What happens to a job, as it happens: a stream, or an answer that waits for news."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from mpsearch.api.hub import EventHub, is_last
from mpsearch.api.models import EventList, EventResource, moment
from mpsearch.api.problems import documented
from mpsearch.api.routes.jobs import JobId
from mpsearch.api.tenant import TheTenant
from mpsearch.core.files import to_json
from mpsearch.errors import UsageError
from mpsearch.jobs.events import JobEvent

router = APIRouter(tags=["jobs"])

_LONGEST_WAIT: Final = 60
# Shorter than the minute after which many proxies close what is silent.
_SECONDS_BETWEEN_PINGS: Final = 15.0
_STREAM: Final = "text/event-stream"
# Of the stream, item by item (OpenAPI 3.2, sequential media types).
_EVENT: Final = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "What `Last-Event-ID` takes."},
        "event": {"type": "string", "description": "`state` or `progress`."},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["id", "event", "data"],
}


@router.get(
    "/v1/jobs/{job_id:uuid}/events",
    summary="Follow a job without asking again",
    response_model=EventList,
    responses={
        200: {
            "description": "A stream of events until the job has ended; with `wait`, a list.",
            "content": {_STREAM: {"itemSchema": _EVENT}},
        },
        204: {"description": "The job has ended, and nothing came after `Last-Event-ID`."},
        **documented(404, 422),
    },
)
async def get_events(
    *,
    job_id: JobId,
    tenant: TheTenant,
    request: Request,
    wait: Annotated[
        int | None,
        Query(ge=0, le=_LONGEST_WAIT, description="Seconds to wait for news; the answer is JSON."),
    ] = None,
    last_event_id: Annotated[
        str | None,
        Header(max_length=20, description="`id` of the last event that was seen.", examples=["3"]),
    ] = None,
) -> Response:
    """Send each event once, in order. `id` goes on where `Last-Event-ID` was, without a gap.

    Events are changes of state and steps of the work. The stream ends with the job.
    """
    after = _version(last_event_id)
    job = await run_in_threadpool(tenant.jobs.get, str(job_id))
    hub = request.app.state.hub
    assert isinstance(hub, EventHub)
    if wait is not None:
        events = await _awaited(hub, job.id, after=after, seconds=wait)
        return Response(to_json(_listed(events)), media_type="application/json")
    if job.is_done and after >= job.version:
        return Response(status_code=204)
    held = hub.admitted(job.tenant)
    held.__enter__()  # before the answer begins, so that a refusal is a problem

    async def stream() -> AsyncIterator[bytes]:
        try:
            async for piece in _stream(hub, job.id, after=after):
                yield piece
        finally:
            held.__exit__(None, None, None)

    return StreamingResponse(
        stream(),
        media_type=_STREAM,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(hub: EventHub, job_id: str, *, after: int) -> AsyncIterator[bytes]:
    batches = hub.follow(job_id, after=after)
    # A wait that is cut off would end the generator, so each goes on through the pings.
    coming = asyncio.create_task(_next(batches))
    try:
        yield KEEPALIVE_COMMENT
        while True:
            done, _ = await asyncio.wait({coming}, timeout=_SECONDS_BETWEEN_PINGS)
            if not done:
                yield KEEPALIVE_COMMENT
                continue
            events = coming.result()
            if not events:
                return
            for event in events:
                yield _encoded(event)
            coming = asyncio.create_task(_next(batches))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await batches.aclose()  # type: ignore[attr-defined]  # an async generator has it


async def _awaited(
    hub: EventHub, job_id: str, *, after: int, seconds: float
) -> tuple[JobEvent, ...]:
    batches = hub.follow(job_id, after=after)
    try:
        return await asyncio.wait_for(_next(batches), timeout=seconds or 0.1)
    except TimeoutError:
        return ()
    finally:
        await batches.aclose()  # type: ignore[attr-defined]  # an async generator has it


async def _next(batches: AsyncIterator[tuple[JobEvent, ...]]) -> tuple[JobEvent, ...]:
    """Return the next events, none at the end; `anext` with a default is no coroutine."""
    try:
        return await anext(batches)
    except StopAsyncIteration:
        return ()


def _encoded(event: JobEvent) -> bytes:
    data = json.dumps({"created": event.created, **event.data, "last": is_last(event)})
    return format_sse_event(event=event.kind, data_str=data, id=str(event.version))


def _listed(events: tuple[JobEvent, ...]) -> dict[str, Any]:
    resources = [
        EventResource(
            id=event.version, created=moment(event.created), kind=event.kind, data=dict(event.data)
        )
        for event in events
    ]
    return EventList(events=resources).model_dump(mode="json")


def _version(text: str | None) -> int:
    if text is None or text == "":
        return 0
    if not (text.isascii() and text.isdigit()):
        raise UsageError(
            f"Last-Event-ID {text!r} is no number. Expected the `id` of an event. Leave it out to "
            "get them all."
        )
    return int(text)
