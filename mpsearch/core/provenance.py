"""Where a table or plan comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final


@final
@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Hashes of what went in, the seed, versions of what ran, and when (ISO 8601, UTC)."""

    model: str = ""
    data: str = ""
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    created: str = ""
