"""An EMR's outbound side: admissions, orders and results over MLLP, and the load generator of the benchmarks.

Waits for the acknowledgement of every message and matches MSA-2 with its MSH-10. When the answer does not come, is
wrong or the connection closes, it connects anew and sends every unanswered message again, unchanged and in order.
`--window 1` is lock-step as in original mode; a larger window sends ahead. The journal has one line per message that
was acknowledged, written after the acknowledgement came; `code` says which (a refusal, AE AR CE CR, counts as an
answer, unless `--retry-refused`).
"""

import argparse
import asyncio
import ssl
import statistics
import time
from typing import Any

import uvloop

from simulators.arguments import add_journal, address, make_parser, size
from simulators.emr_lane import Campaign, Lane, Pace
from simulators.hl7_messages import KINDS, templates
from simulators.journal import Journal
from simulators.lifecycle import announce, stop_event, summarise

DRAIN_TIMEOUT_S = 5.0


async def run(options: argparse.Namespace) -> bool:
    """Send until all is acknowledged or SIGTERM; return whether everything sent was answered."""
    journal = Journal(options.journal)
    stopped = stop_event()
    texts = templates(options.kind, seed=options.seed, size_bytes=options.size, charset=options.charset)
    campaign = Campaign(
        run=options.run or f"E{int(time.time() * 1000) & 0xFFFFFFF:x}",
        templates=texts,
        journal=journal,
        count=options.count,
        retry_refused=options.retry_refused,
    )
    pace = Pace(
        window=options.window,
        interval_s=options.connections / options.rate if options.rate else 0.0,
        ack_timeout_s=options.ack_timeout,
    )
    host, port = options.to
    tls = _tls(options)
    lanes = [Lane(campaign, number, (host, port), pace, tls) for number in range(options.connections)]
    announce(to=f"{host}:{port}", run=campaign.run, connections=options.connections)
    began_s = time.monotonic()
    await _until_done(lanes, campaign, stopped)
    seconds = time.monotonic() - began_s
    journal.close()
    unanswered = sum(lane.unanswered for lane in lanes)
    summarise(**_counts(campaign, seconds), unanswered=unanswered)
    return unanswered == 0


async def _until_done(lanes: list[Lane], campaign: Campaign, stopped: asyncio.Event) -> None:
    tasks = [asyncio.create_task(lane.run()) for lane in lanes]
    stopping = asyncio.create_task(stopped.wait())
    everything: asyncio.Future[Any] = asyncio.gather(*tasks)
    ends: list[asyncio.Future[Any]] = [everything, stopping]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    campaign.stop()
    for lane in lanes:
        lane.finish()
    await asyncio.wait([everything], timeout=DRAIN_TIMEOUT_S)
    stopping.cancel()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(everything, return_exceptions=True)


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.tls_ca is None:
        return None
    context = ssl.create_default_context(cafile=options.tls_ca)
    context.check_hostname = False  # test peers listen on loopback under any name
    if options.tls_cert is not None:
        context.load_cert_chain(*options.tls_cert)
    return context


def _counts(campaign: Campaign, seconds: float) -> dict[str, Any]:
    latencies = sorted(campaign.latencies_s)
    percentiles = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
    return {
        "sent": campaign.sent,
        "acknowledged": campaign.acknowledged,
        "refused": campaign.refused,
        "resent": campaign.resent,
        "wrong_answers": campaign.wrong_answers,
        "reconnects": campaign.reconnects,
        "seconds": seconds,
        "rate": campaign.acknowledged / seconds if seconds else 0.0,
        "p50_ms": percentiles[49] * 1000,
        "p99_ms": percentiles[98] * 1000,
    }


def main() -> None:
    """Run the command line; exit status 1 when something sent was never answered."""
    parser = make_parser(
        "emr", "Sends HL7 v2 over MLLP.", "--to 127.0.0.1:2575 --kind mix --rate 20 --journal sent.jsonl"
    )
    parser.add_argument("--to", type=address, required=True, metavar="HOST:PORT")
    parser.add_argument("--kind", choices=KINDS, default="mix", help="oru25: PCD-01-like, 25 OBX, 4.6 KB")
    parser.add_argument("--count", type=int, help="end after N messages (default: go on)")
    parser.add_argument("--rate", type=float, help="messages a second in all (default: as fast as answered)")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--window", type=int, default=1, help="messages sent ahead of their answers, per connection")
    parser.add_argument("--ack-timeout", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--size", type=size, default=0, help="fill messages up to this size, e.g. 16MB")
    parser.add_argument("--charset", choices=("utf-8", "latin-1"), default="utf-8")
    parser.add_argument("--run", help="prefix of MSH-10 (default: from the clock)")
    parser.add_argument("--retry-refused", action="store_true", help="send a refused message again, a second later")
    parser.add_argument("--tls-ca", metavar="FILE", help="speak TLS and trust this authority")
    parser.add_argument("--tls-cert", nargs=2, metavar=("CERT", "KEY"), help="our certificate, for mutual TLS")
    add_journal(parser)
    if not uvloop.run(run(parser.parse_args())):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
