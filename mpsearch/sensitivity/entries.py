"""Cached entries: per-sample values of pairs, under keys that hold all that decides them."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mpsearch.core.cache import Cache, content_hash
from mpsearch.core.graph import Op
from mpsearch.execution.products import quantisers_hashed
from mpsearch.sensitivity.identity import task_identity
from mpsearch.sensitivity.request import Request

_END_OF_NAMES: Final = b"\n"


def pair_identity(request: Request, *, layer: str, name: str) -> str:
    """Return a hash of all that decides what the format does to this layer."""
    number = request.formats[name]
    first, others = quantisers_hashed(layer, number=number, quantizers=request.quantizers)
    graph = request.traced.graph
    weight_only = number.activation is None and not number.is_floating
    is_dynamic = weight_only and graph.layers[graph.index(layer)].op is Op.LINEAR
    return content_hash(
        dataclasses.asdict(number),
        first,
        request.dynamic_group if is_dynamic else None,
        *others,
    )


@final
@dataclass(frozen=True, kw_only=True)
class Entries:
    """The cached values of one metric for one request; nothing is kept without a cache."""

    kind: str
    cache: Cache | None
    identity: str

    @staticmethod
    def of(request: Request, *, kind: str, settings: Iterable[object]) -> "Entries":
        """Return the entries of a request; `settings` are the metric's own.

        A task that cannot be identified keeps nothing.
        """
        task = task_identity(request.task)
        return Entries(
            kind=kind,
            cache=request.cache if task is not None else None,
            identity=content_hash(kind, request.traced.graph.fingerprint, task, *settings),
        )

    def get(self, *parts: object) -> dict[str, Float[ndarray, "..."]]:
        """Return the values kept under a key, by pair; empty where there are none."""
        content = None if self.cache is None else self.cache.get_bytes(self.kind, self._key(*parts))
        return {} if content is None else _unpacked(content)

    def put(self, *parts: object, values: Mapping[str, Float[ndarray, "..."]]) -> None:
        """Keep values by pair, all of one shape, under a key."""
        if self.cache is not None and values:
            self.cache.put_bytes(self.kind, self._key(*parts), content=_packed(values))

    def _key(self, *parts: object) -> str:
        return content_hash(self.identity, *parts)


def _packed(values: Mapping[str, Float[ndarray, "..."]]) -> bytes:
    table = np.stack(list(values.values()))
    table = table.astype(table.dtype.newbyteorder("<"))
    header = json.dumps([list(values), table.dtype.str, table.shape]).encode()
    return header + _END_OF_NAMES + table.tobytes()


def _unpacked(content: bytes) -> dict[str, Float[ndarray, "..."]]:
    header, _, body = content.partition(_END_OF_NAMES)
    names, dtype, shape = json.loads(header)
    stored = np.frombuffer(body, dtype=dtype).reshape(shape)
    table = stored.astype(stored.dtype.newbyteorder("="))
    return dict(zip(names, table, strict=True))
