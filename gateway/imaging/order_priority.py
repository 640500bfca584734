"""How urgent the worklist says an Instance's study is: the Requested Procedure Priority of its item.

Images come by the hundred, so what was found is good for a while, and an order that comes or changes meanwhile is seen
soon after.
"""

import logging
import threading
from collections.abc import Mapping

from gateway.clock import Clock
from gateway.dataset import text_at
from gateway.errors import place_of
from gateway.orders import FindItem, ScheduledStep

KEYWORD, TAG = "RequestedProcedurePriority", 0x00401003
KNOWN_S = 10.0
KNOWN_MAX = 1000


_log = logging.getLogger("gateway.imaging")


class OrderPriority:
    """Asks the worklist; from any thread."""

    def __init__(self, find_item: FindItem, clock: Clock) -> None:
        """Take what finds the item of a study or accession number; it may block."""
        self._find_item = find_item
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[str, float]] = {}

    def __call__(self, header: Mapping[str, str]) -> str:
        """Return the priority of the item that an Instance's header belongs to, "" where there is none."""
        key = header.get("StudyInstanceUID", ""), header.get("AccessionNumber", "")
        if key == ("", ""):
            return ""
        now = self._clock.monotonic()
        with self._lock:
            said, until = self._known.get(key, ("", 0.0))
        if now < until:
            return said
        said = self._look_up(*key)
        with self._lock:
            self._known.pop(key, None)
            self._known[key] = said, now + KNOWN_S
            while len(self._known) > KNOWN_MAX:
                del self._known[next(iter(self._known))]
        return said

    def _look_up(self, study: str, accession: str) -> str:
        try:
            item = self._find_item(ScheduledStep(study_instance_uid=study, accession_number=accession))
        except Exception as error:  # noqa: BLE001  # border: how urgent it is must not decide whether it is kept
            _log.error("priority.unknown error=%s place=%s", type(error).__name__, place_of(error))
            return ""
        return "" if item is None else text_at(item, TAG).strip()
