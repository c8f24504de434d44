"""HTTP by uvicorn, with head and body of an answer in one packet.

uvicorn writes them one after the other, and each write is a system call, a packet, and a client
that wakes up. Here what is written in one step of the event loop leaves at its end.
"""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Together:
    """What uvicorn uses of a connection's transport, its writes joined."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.is_closing = transport.is_closing
        self.call_soon = asyncio.get_running_loop().call_soon
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self.parts:
            self.call_soon(self.flush)
        self.parts.append(data)

    def flush(self) -> None:
        data = b"".join(self.parts)
        self.parts.clear()
        if data and not self.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        self.flush()
        self.transport.close()


class Protocol(HttpToolsProtocol):
    """For `uvicorn.run(http=...)`, without websockets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast(asyncio.Transport, transport)
        super().connection_made(made)
        self.transport = cast(asyncio.Transport, Together(made))
