"""What can be told of a gateway that does not run: the counters of its store."""

import json
from typing import Any

from gateway.cli.messages import reading
from gateway.clock import SystemClock
from gateway.config import Config
from gateway.console.build import product_version
from gateway.console.document import to_json
from gateway.console.report import (
    Report,
    destination_report,
    read_waiting,
    source_report,
    stopped_store_report,
)
from gateway.errors import StoreError
from gateway.status import DestinationStatus, LinkState, SourceStatus
from gateway.store.counters import read_counters


def stopped_document(config: Config) -> dict[str, Any]:
    """Return a document of the same shape as the agent's. Raises StoreError when there is no store."""
    names = [each.name for each in config.destinations]
    try:
        with reading(config) as readers:
            totals = read_counters(readers.connection)
            waiting = read_waiting(readers, names)
    except StoreError as error:
        raise StoreError(f"no agent runs, and {error}") from error
    now = SystemClock().now()
    sources = [SourceStatus(name=each.name, type=each.type, state=LinkState.DOWN) for each in config.sources]
    destinations = [
        DestinationStatus(name=each.name, type=each.type, state=LinkState.DOWN) for each in config.destinations
    ]
    report = Report(
        running=False,
        name=config.gateway.name,
        version=product_version(),
        started_at=None,
        uptime_s=0.0,
        sources=tuple(source_report(status, totals) for status in sources),
        destinations=tuple(
            destination_report(status, totals, waiting.get(status.name), now) for status in destinations
        ),
        store=stopped_store_report(config.gateway.data_dir, config.retention.stop_intake_below),
        alarms=(),
    )
    document: dict[str, Any] = json.loads(to_json(report))
    return document
