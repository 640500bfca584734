"""`gateway send`: DICOM files to a Destination at once; `gateway echo`: does a Destination answer?

Files go past the store: nothing is kept or tried again, so that each one's outcome is known when the command ends.
A Destination that gets de-identified objects by its routes gets nothing else: `--as SOURCE` sends files as if that
Source had brought them, with all that its routes change.
"""

import argparse
import asyncio
import re
import tempfile
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, BinaryIO

import uvloop

from gateway.assembly import Origins, make_sender
from gateway.cli.output import add_json, clean, print_json
from gateway.cli.settings import read_config
from gateway.clock import SystemClock
from gateway.config import Config, Destination, DicomDestination, StowDestination, effective_routes
from gateway.errors import ContentError, GatewayError, LinkError, StoreError, TemporaryError
from gateway.formats.dicom import read_header
from gateway.imaging.rewriting import Rewriter, Rules
from gateway.model import Delivery, DeliveryState, Kind, Message, Parcel, Receipt, Verdict
from gateway.routing import Router
from gateway.senders.sender import Sender
from gateway.typed import did_you_mean

TIMEOUT_S = 30.0
_PLACE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")

Outcome = dict[str, Any]


def add_send_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `send` takes."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="DICOM files, or folders of them")
    parser.add_argument("--to", required=True, metavar="DESTINATION", help="a DICOM or STOW destination")
    parser.add_argument("--as", dest="source", metavar="SOURCE", help="apply the routes of this source")
    add_json(parser)


def add_echo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `echo` takes."""
    parser.add_argument("place", metavar="DESTINATION|HOST:PORT", help="a destination's name, or a DICOM peer")
    parser.add_argument("--ae-title", default="ANY-SCP", help="of the peer at HOST:PORT (default: ANY-SCP)")
    parser.add_argument("--calling", default="GATEWAY", metavar="AE_TITLE", help="ours (default: GATEWAY)")
    add_json(parser)


def send(arguments: argparse.Namespace) -> int:
    """Send files and say how each went; 1 when one was not taken. Raises GatewayError."""
    config = read_config(arguments)
    destination = _destination(config, arguments.to)
    if not isinstance(destination, DicomDestination | StowDestination):
        raise GatewayError(f"{destination.name} takes no DICOM files")
    if arguments.source is not None and arguments.source not in [source.name for source in config.sources]:
        raise GatewayError(f"there is no source {arguments.source!r}")
    files = list(_files(arguments.files))
    if not files:
        raise GatewayError("there are no files")
    outcomes = uvloop.run(_send(config, destination, files, arguments.source or ""))
    if arguments.json:
        print_json({"files": outcomes})
    else:
        for outcome in outcomes:
            print(f"{'ok    ' if outcome['ok'] else 'FAILED'}  {outcome['file']}: {clean(outcome['text'])}")
    return 0 if all(outcome["ok"] for outcome in outcomes) else 1


def echo(arguments: argparse.Namespace) -> int:
    """Ask a Destination or a DICOM peer whether it is there. Raises LinkError, TemporaryError, GatewayError."""
    match = _PLACE.fullmatch(arguments.place)
    config = Config() if match is not None else read_config(arguments)
    if match is None:
        destination = _destination(config, arguments.place)
    else:
        destination = DicomDestination(
            name="peer",
            host=match[1].strip("[]"),
            port=int(match[2]),
            ae_title=arguments.ae_title,
            calling_ae_title=arguments.calling,
        )
    text = uvloop.run(_probe(config, destination))
    if arguments.json:
        print_json({"name": arguments.place, "ok": True, "text": text})
    else:
        print(clean(text))
    return 0


class LooseFiles:
    """Files anywhere, under numbers in place of an object's name, and a folder to write in: what a Sender needs."""

    def __init__(self, files: Sequence[Path], folder: Path) -> None:
        self._files = files
        self._folder = folder

    def path_of(self, name: str) -> Path:
        """Return a file by its number."""
        return self._files[int(name)]

    def new_incoming(self) -> BinaryIO:
        """Open a new, empty file."""
        try:
            return tempfile.NamedTemporaryFile(dir=self._folder, delete=False)  # type: ignore[return-value]
        except OSError as error:
            raise StoreError(f"writing a temporary file: {error.strerror}") from error


async def _send(config: Config, destination: Destination, files: list[Path], source: str) -> list[Outcome]:
    routes = effective_routes(config)
    rules = Rules.of(routes, Router(routes, config.sources, config.destinations))
    clock = SystemClock()
    said: dict[int, str] = {}
    taken: set[int] = set()
    with tempfile.TemporaryDirectory(prefix="gateway-send-") as folder:
        objects = LooseFiles(files, Path(folder))
        rewriter = Rewriter(lambda: rules, objects, system=config.gateway.name)
        sender = make_sender(destination, Origins(config.gateway), objects, clock, preparer=rewriter)
        parcels = [_parcel(number, path, destination.name, source, clock) for number, path in enumerate(files)]
        try:
            for start in range(0, len(parcels), sender.batch_max):
                async for receipt in _receipts(sender, parcels[start : start + sender.batch_max]):
                    said[receipt.delivery_id] = receipt.reason or "stored"
                    if receipt.verdict is Verdict.DELIVERED:
                        taken.add(receipt.delivery_id)
        except (LinkError, TemporaryError) as error:
            said |= {number: str(error) for number in range(len(files)) if number not in said}
        finally:
            await sender.close()
    return [
        {"file": str(path), "ok": number in taken, "text": said.get(number, "not tried")}
        for number, path in enumerate(files)
    ]


async def _receipts(sender: Sender, parcels: Sequence[Parcel]) -> AsyncGenerator[Receipt, None]:
    async with aclosing(sender.send(parcels)) as receipts:
        async for receipt in receipts:
            yield receipt


async def _probe(config: Config, destination: Destination) -> str:
    sender = make_sender(
        destination, Origins(config.gateway), LooseFiles((), Path(tempfile.gettempdir())), SystemClock()
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await sender.probe()
    except TimeoutError:
        raise LinkError(f"{destination.name}: no answer within {TIMEOUT_S:g} s") from None
    finally:
        await sender.close()


def _destination(config: Config, name: str) -> Destination:
    for destination in config.destinations:
        if destination.name == name:
            return destination
    known = [destination.name for destination in config.destinations]
    raise GatewayError(f"there is no destination {name!r}{did_you_mean(name, known)}")


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.is_file())
        else:
            yield path


def _parcel(number: int, path: Path, destination: str, source: str, clock: SystemClock) -> Parcel:
    try:
        headers = read_header(path).values
    except (ContentError, OSError):
        headers = {}  # the Sender says what is wrong with it
    message = Message(
        id=number,
        source=source,
        kind=Kind.DICOM,
        received_at=clock.now(),
        size=0,
        digest=b"",
        peer=None,
        identifier=None,
        observed_at=None,
        raw=None,
        object_name=str(number),
        result=None,
        headers=headers,
        quarantined=None,
    )
    delivery = Delivery(
        id=number,
        message_id=number,
        destination=destination,
        state=DeliveryState.PENDING,
        ordinal=number,
        control_id=str(number),
    )
    return Parcel(delivery=delivery, message=message)
