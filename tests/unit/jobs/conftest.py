"""Empty databases: SQLite, and a Postgres of our own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mpsearch.jobs.tables import open_database


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Return an empty database of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    else:
        url = request.getfixturevalue("postgres").database()
    opened = open_database(url)
    yield opened
    opened.dispose()
