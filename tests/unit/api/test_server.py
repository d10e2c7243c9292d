"""Laws of the port: ours alone, on loopback, or a clear refusal."""

import pytest

from mpsearch.api.server import listen, url_of
from mpsearch.errors import ConflictError


def test_a_taken_port_says_so_and_how_to_choose_another() -> None:
    with listen(0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConflictError, match=rf"Port {port} .*taken.*--port {port + 1}"):
            listen(port)
    listen(port).close()


def test_a_free_port_is_on_loopback() -> None:
    with listen(0) as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")
