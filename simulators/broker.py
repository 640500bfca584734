"""An embedded MQTT broker for demonstrations (amqtt), so that nothing needs to be installed.

It speaks MQTT 3.1.1 only (protocol level 4; a version 5 client is turned away with return code 1), so a gateway that
publishes here needs `version = "3.1.1"`. Everybody may connect, publish and subscribe; nothing outlives the process.
Queues in the broker are not bounded by amqtt: for tests of load or of version 5 use mosquitto.
"""

import argparse
import asyncio
import logging

from amqtt.broker import Broker  # type: ignore[import-untyped]

from simulators.arguments import add_listen, make_parser
from simulators.lifecycle import announce, stop_event, summarise

SHUTDOWN_TIMEOUT_S = 5.0


async def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    stopped = stop_event()
    host, port = options.listen
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    listening = broker._servers["default"].instance.sockets[0]  # port 0 is nowhere else told
    announce(port=listening.getsockname()[1], host=host, version="3.1.1")
    await stopped.wait()
    try:
        async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
            await broker.shutdown()
    except TimeoutError:
        pass
    summarise()


def main() -> None:
    """Run the command line."""
    parser = make_parser("broker", "An MQTT 3.1.1 broker on loopback.", "--listen 127.0.0.1:1883")
    add_listen(parser)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
