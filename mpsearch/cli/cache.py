"""`mpsearch cache`: what was measured, and how to forget it."""

from typing import Annotated

import typer

from mpsearch.cli.options import CacheFolder, Json
from mpsearch.cli.session import session
from mpsearch.cli.shown import table_of
from mpsearch.cli.words import size
from mpsearch.core.cache import Cache, default_cache_folder
from mpsearch.errors import UsageError


def cache(
    *,
    clear: Annotated[bool, typer.Option("--clear", help="Delete the values.")] = False,
    kind: Annotated[
        str | None, typer.Option("--kind", help="With --clear: only values of this kind.")
    ] = None,
    folder: CacheFolder = None,
    as_json: Json = False,
) -> None:
    """Show, or clear, the cache of measured values."""
    with session(as_json=as_json) as run:
        store = Cache(folder=folder or default_cache_folder())
        sizes = store.sizes()
        if kind is not None and (not clear or kind not in sizes):
            raise UsageError(
                f"--kind {kind} has nothing to act on. Expected --clear and one of "
                f"{', '.join(sizes) or 'no kind, as the cache is empty'}. "
                "`mpsearch cache` lists the kinds."
            )
        deleted = store.clear(kind) if clear else 0
        kinds = {name: {"values": count, "bytes": held} for name, (count, held) in sizes.items()}
        run.answer(
            {"folder": store.folder, "kinds": kinds, "deleted": deleted},
            shown=f"Deleted {deleted} values from {store.folder}."
            if clear
            else table_of(
                str(store.folder),
                "values",
                "size",
                rows=[(name, count, size(float(held))) for name, (count, held) in sizes.items()]
                or [("empty", 0, size(0.0))],
            ),
        )
