"""WebSockets as uvicorn serves them, with bounded buffers and an end for whoever does not read."""

import asyncio
from asyncio.transports import BaseTransport

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MAX_UNSENT_BYTES = 16 * 1024
"""What waits in this process for a browser that reads slowly; beyond it `send` waits."""
CLOSE_S = 10.0


class Socket(WebSocketsSansIOProtocol):
    """uvicorn waits for the browser before it closes, and then for what is unsent, without end.

    Here a close goes out at once, behind what is unsent, and the connection ends within CLOSE_S.
    """

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "websocket.close":
            self.writable.set()
        if self.close_sent:
            raise ClientDisconnected
        await super().send(message)
        if self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self._abort_later()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_later()

    def _abort_later(self) -> asyncio.TimerHandle:
        return self.loop.call_later(CLOSE_S, self.transport.abort)
