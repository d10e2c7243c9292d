"""Laws of patience: a request that gets no further loses its connection, any other does not."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
import uvicorn

from mpsearch.api import connection
from mpsearch.api.connection import ImpatientProtocol
from mpsearch.api.server import listen

PATIENCE: Final = 0.4
HEAD: Final = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SECONDS_FOR_A_HEAD", PATIENCE)
    monkeypatch.setattr(connection, "SECONDS_BETWEEN_PIECES", PATIENCE)


async def echo(
    scope: Mapping[str, Any], receive: Callable[[], Any], send: Callable[..., Any]
) -> None:
    del scope
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    if body == b"slow":
        await asyncio.sleep(3 * PATIENCE)
    start = {"type": "http.response.start", "status": 200}
    await send({**start, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def said(*pieces: bytes, pause: float) -> tuple[bytes, float]:
    """Return what comes back to pieces sent with pauses between them, and after how long."""

    async def talk() -> tuple[bytes, float]:
        config = uvicorn.Config(
            echo, http=ImpatientProtocol, ws="none", lifespan="off", log_level="error",
            timeout_keep_alive=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        with listen(0) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            start, answer = time.monotonic(), b""
            try:
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(pause)
                answer = await asyncio.wait_for(reader.read(), timeout=20)
            except ConnectionError:
                pass
            ended = time.monotonic() - start
            writer.close()
            server.should_exit = True
            await serving
        return answer, ended

    return asyncio.run(talk())


@pytest.mark.parametrize("piece", [b"", b"P", HEAD])
def test_a_head_that_does_not_come_ends_the_connection(piece: bytes) -> None:
    answer, seconds = said(piece, pause=0)
    assert answer == b""
    assert seconds >= PATIENCE


def test_a_head_that_comes_letter_by_letter_wins_no_time() -> None:
    letters = [HEAD[place : place + 1] for place in range(len(HEAD))]
    answer, _ = said(*letters, b"\r\nbody", pause=PATIENCE / 20)
    assert b"200" not in answer


def test_a_body_that_stops_ends_the_connection() -> None:
    assert said(HEAD + b"\r\nbo", pause=0)[0] == b""


def test_a_body_that_goes_on_is_taken() -> None:
    answer, seconds = said(HEAD + b"\r\n", b"b", b"o", b"d", b"y", pause=PATIENCE / 2)
    assert answer.endswith(b"body")
    assert seconds > PATIENCE


def test_an_answer_may_take_its_time() -> None:
    answer, _ = said(HEAD + b"\r\nslow", pause=0)
    assert answer.endswith(b"slow")


def test_a_connection_that_is_used_again_is_as_short_of_time() -> None:
    answer, _ = said(HEAD + b"\r\nbody", HEAD, pause=PATIENCE / 2)
    assert answer.count(b"200 OK") == 1
