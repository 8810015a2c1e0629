"""The floor of any server: reads so many bytes on a TCP connection, answers with so many. A process of `server.py`.

python benchmarks/server_echo.py PORT READ_BYTES ANSWER_BYTES
"""

from __future__ import annotations

import asyncio
import sys


async def run(port: int, read: int, answer: int) -> None:
    """Serve until the process is ended."""
    reply = bytes(answer)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readexactly(read)
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", port, limit=2 * read)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(run(*map(int, sys.argv[1:])))
