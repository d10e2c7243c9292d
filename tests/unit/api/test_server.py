"""Laws of the port: ours alone, on loopback, or a clear refusal."""

import asyncio
import socket

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


def test_answers_do_not_wait_for_the_acknowledgement_of_their_first_half() -> None:
    listener = listen(0)

    async def accepted() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            seen.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(note, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            result = await seen
            writer.close()
        return result

    assert asyncio.run(accepted()) == 1
