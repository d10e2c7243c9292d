"""What a route works with on behalf of its caller: that tenant's things, and no other's."""

from dataclasses import dataclass
from typing import Annotated, TypeAlias, final

from fastapi import Depends, Request

from mpsearch.api.gate import actor_of
from mpsearch.api.service import TheService
from mpsearch.jobs.database import Actor
from mpsearch.jobs.sources import Sources
from mpsearch.jobs.store import JobStore
from mpsearch.jobs.uploads import OwnUploads


@final
@dataclass(frozen=True, kw_only=True)
class Tenant:
    """The things of one tenant: what is not in them is answered like what does not exist."""

    actor: Actor
    jobs: JobStore
    uploads: OwnUploads
    sources: Sources


async def _tenant(request: Request, service: TheService) -> Tenant:
    actor = actor_of(request)
    uploads = OwnUploads(
        engine=service.store.engine,
        store=service.blobs,
        actor=actor,
        most_bytes=service.settings.limits.blob_bytes,
    )
    return Tenant(
        actor=actor,
        jobs=service.store.of(actor),
        uploads=uploads,
        sources=Sources(roots=service.settings.roots, blobs=uploads),
    )


TheTenant: TypeAlias = Annotated[Tenant, Depends(_tenant)]
