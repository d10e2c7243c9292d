"""Uploads: a file goes in under its SHA-256."""

from typing import Annotated, Final, TypeAlias

from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool

from mpsearch.api.models import BlobResource
from mpsearch.api.problems import documented
from mpsearch.api.tenant import TheTenant
from mpsearch.jobs.blobs import PREFIX

router = APIRouter(tags=["blobs"])

# Hashing and writing go to a thread in pieces of this size: large enough to be worth the trip.
_PIECE: Final = 2**20
_BODY: Final = {
    "requestBody": {
        "required": False,  # an empty file has a digest too
        "description": "The file as it is.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


_Digest: TypeAlias = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the file in lower-case hexadecimal digits.",
        examples=["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    ),
]


@router.head(
    "/v1/blobs/sha256:{digest}",
    summary="Ask for a file",
    response_class=Response,
    responses={200: {"description": "It is here."}, **documented(404, 422)},
)
def head_blob(digest: _Digest, tenant: TheTenant) -> Response:
    """Say whether a file was uploaded, so that it need not be sent again."""
    tenant.uploads.path(PREFIX + digest)
    return Response()


@router.put(
    "/v1/blobs/sha256:{digest}",
    summary="Upload a file",
    status_code=201,
    responses={
        200: {"description": "It was here already.", "model": BlobResource},
        201: {"description": "It is here now."},
        **documented(413, 422, 429, 507),
    },
    openapi_extra=_BODY,
)
async def put_blob(
    *, digest: _Digest, request: Request, response: Response, tenant: TheTenant
) -> BlobResource:
    """Take in a file. It is checked against its digest and appears whole or not at all.

    Send it again after a failure: nothing is left behind.
    """
    name = PREFIX + digest
    known = await run_in_threadpool(tenant.uploads.size, name) is not None
    async with contextmanager_in_threadpool(tenant.uploads.receiving(name)) as writer:
        pieces = bytearray()
        async for chunk in request.stream():
            pieces += chunk
            if len(pieces) >= _PIECE:
                await run_in_threadpool(writer.write, bytes(pieces))
                pieces.clear()
        await run_in_threadpool(writer.write, bytes(pieces))
    response.status_code = 200 if known else 201
    return BlobResource(name=name, size=writer.size)
