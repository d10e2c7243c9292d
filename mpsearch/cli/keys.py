"""`mpsearch keys`: who may use the service, with what, until when."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpsearch.cli.options import Json
from mpsearch.cli.serve import DataOption, needs_server_packages
from mpsearch.cli.session import session
from mpsearch.cli.shown import table_of

if TYPE_CHECKING:
    from mpsearch.jobs.keys import Key, KeyStore

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke keys of the service.")


@keys.command()
def create(
    *,
    tenant: Annotated[
        str, typer.Option("--tenant", help="Whose jobs and uploads it opens, such as a team.")
    ],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help="read, write or metrics; repeatable. [default: read, write]"),
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", help="Until it expires. [default: never]")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="Of whom or what it is.")] = "",
    data: DataOption = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it, this one time.

    With the first key, every request to the server needs one, also from this machine.
    """
    with session(as_json=as_json) as run, _opened(data) as store:
        from mpsearch.jobs.keys import scopes_named

        key, text = store.create(
            tenant,
            scopes=scopes_named(scopes or ("read", "write")),
            note=note,
            days=days,
        )
        run.answer({**_plain(key), "key": text}, shown=text)
        run.say("This is the only time that it is shown. Send it as 'Authorization: Bearer KEY'.")


@keys.command("list")
def list_keys(*, data: DataOption = None, as_json: Json = False) -> None:
    """Show every key, without its secret."""
    with session(as_json=as_json) as run, _opened(data) as store:
        known = [_plain(key) for key in store.all()]
        run.answer(
            {"keys": known},
            shown=table_of(
                *("id", "tenant", "scopes", "state", "expires", "note"),
                rows=[
                    (
                        *(key["id"], key["tenant"], " ".join(key["scopes"]), key["state"]),
                        *(key["expires"] or "never", key["note"]),
                    )
                    for key in known
                ],
            ),
        )


@keys.command()
def revoke(
    *,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The part between 'mps_' and '_'.")],
    data: DataOption = None,
    as_json: Json = False,
) -> None:
    """End a key: from the next request on it opens nothing."""
    with session(as_json=as_json) as run, _opened(data) as store:
        key = store.revoke(key_id.removeprefix("mps_"))
        run.answer(_plain(key), shown=f"Key {key.id} of {key.tenant} is revoked.")


@contextmanager
def _opened(data: Path | None) -> "Iterator[KeyStore]":
    with needs_server_packages():
        from mpsearch.api.settings import data_folder
        from mpsearch.jobs.data_folder import default_data_folder
        from mpsearch.jobs.keys import KeyStore, pepper_of
        from mpsearch.jobs.migrate import migrate
        from mpsearch.jobs.tables import open_database
    folder = data_folder(data or default_data_folder())
    pepper = pepper_of(folder.path)
    engine = open_database(folder.database_url)
    try:
        migrate(engine)
        yield KeyStore(engine=engine, pepper=pepper)
    finally:
        engine.dispose()


def _plain(key: "Key") -> dict[str, Any]:
    ended = "revoked" if key.revoked is not None else "expired"
    return {
        "id": key.id,
        "tenant": key.tenant,
        "scopes": [str(scope) for scope in key.scopes],
        "note": key.note,
        "state": "valid" if key.is_valid(now=time.time()) else ended,
        "expires": None
        if key.expires is None
        else datetime.fromtimestamp(key.expires, tz=UTC).isoformat(timespec="seconds"),
    }
