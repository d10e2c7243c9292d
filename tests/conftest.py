"""What every test runs under."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from benchmarks.service.postgres import Postgres

# A busy machine makes an example slow, not wrong.
settings.register_profile(
    "mpsearch", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("mpsearch")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return a Postgres server that ends with the tests."""
    with Postgres() as server:
        yield server
