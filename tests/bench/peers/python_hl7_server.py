"""python-hl7's own asyncio server as its documentation shows it: parse, create_ack, nothing stored."""

import asyncio

import hl7
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server


async def _serve(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
    try:
        while not writer.is_closing():
            message = await reader.readmessage()
            writer.writemessage(message.create_ack())
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


async def main() -> None:
    """Print the port and serve until killed."""
    server = await start_hl7_server(_serve, host="127.0.0.1", port=0, encoding="utf-8")
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    assert hl7.__version__
    asyncio.run(main())
