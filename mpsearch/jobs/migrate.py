"""Bring a database to the tables of this version, or back to those of an older one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from mpsearch.errors import ConflictError
from mpsearch.jobs.data_folder import owned

_FIRST: Final = "0001"
# Any number that nobody else locks in the same database: the letters "mps" and a counter.
_LOCK: Final = 0x6D707301


def migrate(engine: Engine, *, to: str = "head") -> None:
    """Make, upgrade or check the tables; one process at a time does so.

    Args:
        engine: The database.
        to: A revision number such as "0001"; by default that of this version.

    Raises:
        ConflictError: The tables are of a newer version.
    """
    with _alone(engine), engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            # Python's driver opens no transaction for what alters a table.
            connection.exec_driver_sql("begin immediate")
        config = _config(connection)
        scripts = ScriptDirectory.from_config(config)
        found = MigrationContext.configure(connection).get_current_revision()
        known = [script.revision for script in scripts.walk_revisions()]
        if found is not None and found not in known:
            raise ConflictError(
                f"The data are of version {found}. Expected at most {known[0]}. Upgrade mpsearch, "
                "or choose another folder with --data."
            )
        target = known[0] if to == "head" else to
        if found is None and inspect(connection).has_table("jobs"):
            # A folder from before there were migrations.
            command.stamp(config, _FIRST)
            found = _FIRST
        if found is None or target > found:
            command.upgrade(config, target)
        elif target < found:
            command.downgrade(config, target)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Hold off other processes: several start at once and would migrate at once."""
    if engine.dialect.name == "sqlite":
        assert engine.url.database is not None
        with owned(Path(f"{engine.url.database}.lock")):
            yield
        return
    # In no transaction, which would be idle while we work, and end for that.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": _LOCK})
        try:
            yield
        finally:
            connection.execute(text("select pg_advisory_unlock(:lock)"), {"lock": _LOCK})
