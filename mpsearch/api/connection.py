"""A connection that does not wait for ever: who sends slowly would hold it, and there are few."""

import asyncio
from typing import Any, Final, final

from uvicorn.protocols.http.h11_impl import H11Protocol

# For the whole of a request's head, and between two pieces of its body.
SECONDS_FOR_A_HEAD: Final = 20.0
SECONDS_BETWEEN_PIECES: Final = 20.0


@final
class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that ends a connection whose request does not get further.

    While the server answers, or has asked the client to wait, nothing runs out.
    """

    def __init__(self, *positional: Any, **named: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(*positional, **named)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base has it
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait(SECONDS_FOR_A_HEAD)

    def data_received(self, data: bytes) -> None:
        """Take in bytes, and wait anew where they brought the request further."""
        was_between = self._is_between
        super().data_received(data)
        if self._is_between:
            # The head is due as a whole, so its pieces win no time.
            if not was_between or self._deadline is None:
                self._wait(SECONDS_FOR_A_HEAD)
        elif self.cycle.more_body:
            self._wait(SECONDS_BETWEEN_PIECES)
        else:
            self._wait(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._wait(None)
        super().connection_lost(exc)

    @property
    def _is_between(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        self._deadline = None
        if self.flow.read_paused:
            self._wait(SECONDS_BETWEEN_PIECES)
        elif self._is_between or self.cycle.more_body:
            self.transport.close()
