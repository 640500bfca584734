"""`gateway capture`: the raw bytes of a Device with times and directions, into a file, onto the screen, or both.

Of a Source of the running agent it looks on and disturbs nothing; a port that nobody has open it opens itself and only
listens, unless a driver is named that may speak (`--talk`). The file is what `gateway replay` and `replay:FILE` read.
"""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TextIO

import uvloop

from gateway.cli.client import lines as ask_lines
from gateway.cli.settings import read_data_dir
from gateway.clock import SystemClock
from gateway.config import Line
from gateway.driver import Driver, LineSettings
from gateway.errors import GatewayError, LinkError
from gateway.net.opening import open_stream
from gateway.net.replay import HEADER, recorded
from gateway.registry import create_driver
from gateway.tap import Direction

BYTES_A_ROW = 16
POLL_S = 0.1

_CLOCK = SystemClock()

Piece = tuple[float, Direction, bytes]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.description = (
        "Record a device's raw bytes with times and directions. A source of the running agent is looked at without"
        " disturbing it; a port is opened and only listened to. The bytes may hold patient data."
    )
    parser.add_argument("what", metavar="PORT|SOURCE", help="a port (/dev/ttyUSB0, tcp://HOST:PORT) or a source's name")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the recording, for `gateway replay`")
    parser.add_argument("--hex", action="store_true", help="show bytes as they come: time, direction, hex, text")
    parser.add_argument("--for", dest="for_s", type=float, metavar="SECONDS", help="stop by itself")
    parser.add_argument("--driver", metavar="NAME", help="take this driver's line settings (of a port)")
    parser.add_argument("--talk", action="store_true", help="let the driver speak, as the agent would (of a port)")
    parser.add_argument("--baud", type=int, metavar="N", help="line settings, instead of 9600 8N1 or the driver's")
    parser.add_argument("--parity", choices=("none", "even", "odd", "mark", "space"))
    parser.add_argument("--data-bits", type=int, choices=(5, 6, 7, 8))
    parser.add_argument("--stop-bits", type=int, choices=(1, 2))


def run(arguments: argparse.Namespace) -> int:
    """Record until stopped; 0 when anything was heard, else 1. Raises GatewayError."""
    if arguments.output is None and not arguments.hex:
        arguments.misused("where to? -o FILE, --hex, or both")
    if arguments.talk and arguments.driver is None:
        arguments.misused("--talk needs --driver NAME: who should speak?")
    with _written(arguments.output) as write:
        heard = _record(arguments, write)
    if arguments.output is not None:
        print(f"{heard} bytes heard, recorded in {arguments.output}", file=sys.stderr)
    return 0 if heard else 1


def _record(arguments: argparse.Namespace, write: Callable[[str], None]) -> int:
    heard = 0

    def took(piece: Piece) -> None:
        nonlocal heard
        heard += len(piece[2]) if piece[1] is Direction.HEARD else 0
        write(recorded(*piece))
        if arguments.hex:
            print(*hex_rows(*piece), sep="\n", flush=True)

    with contextlib.suppress(KeyboardInterrupt):
        if _is_port(arguments.what):
            uvloop.run(_from_port(arguments, took))
        else:
            for piece in _from_agent(arguments):
                took(piece)
    return heard


def _is_port(what: str) -> bool:
    return "/" in what or what.startswith("replay:")


@contextlib.contextmanager
def _written(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Give what writes a line to the file, at once; the file is readable by its owner alone. Raises GatewayError."""
    if path is None:
        yield lambda line: None
        return
    try:
        path.touch(mode=0o600)
        file = path.open("w", encoding="ascii", buffering=1)
    except OSError as error:
        raise GatewayError(f"{path}: {error.strerror}") from error
    with file:
        file.write(f"{HEADER.decode('ascii')}\n")
        yield lambda line: _write(file, line)


def _write(file: TextIO, line: str) -> None:
    file.write(line)


def _from_agent(arguments: argparse.Namespace) -> Iterator[Piece]:
    until = None if arguments.for_s is None else _CLOCK.monotonic() + arguments.for_s
    answer = ask_lines(read_data_dir(arguments), "capture", {"source": arguments.what})
    with contextlib.closing(answer):
        for line in answer:
            if until is not None and _CLOCK.monotonic() >= until:
                return
            if not line.startswith(b"#"):
                at_s, direction, data = line.decode("ascii").split()
                yield float(at_s), Direction(direction), bytes.fromhex(data)


async def _from_port(arguments: argparse.Namespace, took: Callable[[Piece], None]) -> None:
    driver = _driver(arguments.driver) if arguments.driver else None
    speaker = driver if arguments.talk else None
    pieces = _heard_at(arguments.what, _line(arguments, driver), speaker)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(arguments.for_s), aclosing(pieces):
            async for piece in pieces:
                took(piece)


async def _heard_at(port: str, line: LineSettings, speaker: Driver | None) -> AsyncGenerator[Piece, None]:
    """Yield what crosses the wire until it is closed. Raises LinkError."""
    stream = await open_stream(port, line)
    session = speaker.open() if speaker is not None else None
    began = _CLOCK.monotonic()
    try:
        while True:
            if session is not None and (said := session.take_output()):
                await stream.write(said)
                yield _CLOCK.monotonic() - began, Direction.SAID, said
            try:
                async with asyncio.timeout(POLL_S):
                    data = await stream.read()
            except TimeoutError:
                data = None
            now = _CLOCK.monotonic()
            if data == b"":
                raise LinkError(f"{port}: closed by the other side")
            if data:
                yield now - began, Direction.HEARD, data
            if session is not None:
                if data:
                    session.receive(data, now)
                if session.deadline is not None and now >= session.deadline:
                    session.tick(now)
                for _ in session.take_readings():
                    session.settle(stored=False, now=now)  # nothing is kept: who repeats what is refused loses nothing
    finally:
        await stream.close()


def _driver(name: str) -> Driver:
    driver, faults = create_driver(name, {})
    if driver is None:
        raise GatewayError("; ".join(str(fault) for fault in faults))
    return driver


def _line(arguments: argparse.Namespace, driver: Driver | None) -> LineSettings:
    from gateway.sources.link import line_of  # here alone: the other ways need nothing of the agent's rooms

    asked = Line(
        baud=arguments.baud,
        parity=arguments.parity,
        data_bits=arguments.data_bits,
        stop_bits=arguments.stop_bits,
    )
    return line_of(asked, driver.about.line if driver is not None else LineSettings())


def hex_rows(at_s: float, direction: Direction, data: bytes) -> list[str]:
    """Return rows of a time, who spoke (`<` the Device, `>` we), 16 bytes in hex, and the same as text."""
    rows = []
    for start in range(0, len(data), BYTES_A_ROW):
        some = data[start : start + BYTES_A_ROW]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in some)
        head = f"{at_s:12.3f} {direction.value}" if start == 0 else " " * 14
        rows.append(f"{head}  {some.hex(' '):<{BYTES_A_ROW * 3 - 1}}  {text}")
    return rows
