"""What every test runs under."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from benchmarks.service.postgres import Postgres

# A busy machine makes an example slow, not wrong.
# What lands is decided by the same examples each time; every other run draws new ones.
settings.register_profile(
    "mpsearch",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    derandomize="CI" in os.environ,
)
settings.load_profile("mpsearch")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return a Postgres server that ends with the tests."""
    with Postgres() as server:
        yield server
