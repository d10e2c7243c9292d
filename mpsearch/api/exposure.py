"""Whether a server may answer others than this machine."""

from collections.abc import Collection

from mpsearch.api.settings import Settings
from mpsearch.errors import UsageError
from mpsearch.jobs.keys import KeyStore, pepper_of
from mpsearch.jobs.migrate import migrate
from mpsearch.jobs.tables import open_database


def check_exposure(settings: Settings, *, layers: Collection[str]) -> None:
    """Refuse to answer beyond loopback without a key or without a sandbox.

    Raises:
        UsageError: There is no key, or `layers`, those of the sandbox that hold, is empty.
    """
    if not layers:
        raise UsageError(
            f"Host {settings.host!r} is beyond this machine, and no layer of the sandbox holds "
            "here. Expected Landlock or seccomp, which Linux has. `mpsearch doctor` says more; "
            "serve on 127.0.0.1, or on another machine."
        )
    engine = open_database(settings.data.database_url)
    try:
        pepper = pepper_of(settings.data.path)
        migrate(engine)
        if not KeyStore(engine=engine, pepper=pepper).are_there():
            raise UsageError(
                f"Host {settings.host!r} is beyond this machine, and there are no keys. Expected "
                "one. Make it with `mpsearch keys create --tenant NAME`, or serve on 127.0.0.1."
            )
    finally:
        engine.dispose()
