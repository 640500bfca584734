"""Watches studies grow until they are complete, and then owes what waited for that.

    open --MPPS over and all it made is here, commitment asked, or nothing new for study_stable_s--> complete
    complete --one more Instance--> open

A study is complete for a Source. MPPS counts when every step that answers to the study is over and every object that
the steps say they made is held; where one is missing the age decides. Each round also compares new Instances with
their worklist items and holds an alarm for each Source whose Instances disagree, and one for each Source that sent
another Instance under the UID of an earlier one.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from gateway.alarms import Alarms
from gateway.clock import Clock
from gateway.formats.mpps import performed_instances
from gateway.imaging.demographics import COMPARED, disagreements
from gateway.orders import FindItem, ScheduledStep
from gateway.routing import Router
from gateway.store.commitments import newest_held
from gateway.store.conflicts import Conflict, find_conflicts, note_conflicts, standing_conflicts
from gateway.store.reading import read_message
from gateway.store.steps import steps_of_study
from gateway.store.store import Store
from gateway.store.studies import (
    FOLLOW_ROWS_MAX,
    NewInstance,
    StudyProgress,
    complete,
    follow,
    followed_until,
    messages_of_study,
    not_owed,
    open_studies,
    owing_studies,
    read_new_instances,
    sources_disagreeing,
)

ROUND_S = 1.0
REMEMBERED_MAX = 10_000  # comparisons whose result is known
CONFLICTS_TOLD_MAX = 20  # log lines of one round

_log = logging.getLogger("gateway.imaging")


class StudyWatch:
    """One for the agent; `stable_s` tells how long a Source's studies wait for more."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        alarms: Alarms,
        *,
        router: Callable[[], Router],
        find_item: FindItem,
        stable_s: Callable[[str], float],
        owed: Callable[[Iterable[str]], None],
    ) -> None:
        """Take the parts; `owed` hears on the loop which Destinations have new Deliveries."""
        self._store = store
        self._clock = clock
        self._alarms = alarms
        self._router = router
        self._find_item = find_item
        self._stable_s = stable_s
        self._owed = owed
        self._mark: int | None = None
        self._written = 0
        self._compared: dict[tuple[str, ...], frozenset[str]] = {}

    async def run(self) -> None:
        """Go round until cancelled."""
        while True:
            if not await self.round():
                await asyncio.sleep(ROUND_S)

    async def round(self) -> bool:
        """Follow, complete, owe; return whether more waits already."""
        more = await self._follow()
        await self._complete()
        return await self._owe() or more

    async def _follow(self) -> bool:
        if self._mark is None:
            self._mark = await asyncio.to_thread(self._first_mark)
            await self._tell_conflicts(())  # those that were known before the last stop
        mark = self._mark
        until, instances, conflicts = await asyncio.to_thread(self._read_news, mark)
        differing = await asyncio.to_thread(self._compare, instances)
        if instances or until - self._written >= FOLLOW_ROWS_MAX:
            await asyncio.wrap_future(self._store.call(lambda c: _follow(c, until, instances, differing, conflicts)))
            self._written = until
        self._mark = until
        if differing:
            await self._tell_disagreements()
        if conflicts:
            await self._tell_conflicts(conflicts)
        return until - mark >= FOLLOW_ROWS_MAX

    def _read_news(self, mark: int) -> tuple[int, list[NewInstance], list[Conflict]]:
        connection = self._store.readers.connection
        until, instances = read_new_instances(connection, mark)
        return until, instances, find_conflicts(connection, mark, until) if instances else []

    def _first_mark(self) -> int:
        self._written = followed_until(self._store.readers.connection)
        return self._written

    def _compare(self, instances: Iterable[NewInstance]) -> dict[tuple[str, str], frozenset[str]]:
        """Return by Source and study the keywords that differ from the worklist, in a worker thread."""
        found: dict[tuple[str, str], frozenset[str]] = {}
        for each in instances:
            study = each.headers.get("StudyInstanceUID", "")
            keywords = self._differs(each.headers) if study else frozenset()
            if keywords:
                found[each.source, study] = found.get((each.source, study), frozenset()) | keywords
        return found

    def _differs(self, headers: dict[str, str]) -> frozenset[str]:
        key = tuple(headers.get(keyword, "") for keyword in COMPARED)
        known = self._compared.get(key)
        if known is None:
            scheduled = ScheduledStep(
                study_instance_uid=headers.get("StudyInstanceUID", ""),
                accession_number=headers.get("AccessionNumber", ""),
            )
            item = self._find_item(scheduled)
            known = frozenset(disagreements(headers, item)) if item is not None else frozenset()
            if len(self._compared) >= REMEMBERED_MAX:
                self._compared.clear()
            self._compared[key] = known
        return known

    async def _tell_disagreements(self) -> None:
        counts = await asyncio.to_thread(lambda: sources_disagreeing(self._store.readers.connection))
        for source, count in counts.items():
            words = f"objects from {source} disagree with the worklist (gateway studies --disagreeing): {count} studies"
            self._alarms.put(f"worklist-disagrees:{source}", words)

    async def _tell_conflicts(self, news: Sequence[Conflict]) -> None:
        for conflict in news[:CONFLICTS_TOLD_MAX]:
            _log.error(
                "instance.conflicting source=%s message=%d earlier=%d",
                conflict.source,
                conflict.message_id,
                conflict.earlier_id,
            )
        standing = await asyncio.to_thread(lambda: standing_conflicts(self._store.readers.connection))
        for source, known in standing.items():
            words = f"{source} sent another object under the SOP Instance UID of an earlier one; both are kept: "
            words += f"messages {known.first.message_id} and {known.first.earlier_id}"
            self._alarms.put(f"uid-conflict:{source}", words)

    async def _complete(self) -> None:
        now = self._clock.now()
        causes = await asyncio.to_thread(self._causes, now)
        for cause, studies in causes.items():
            done = await asyncio.wrap_future(
                self._store.call(lambda c, cause=cause, studies=studies: complete(c, studies, cause, now))  # type: ignore[misc]
            )
            for study in studies:
                if study.id in done:
                    _log.info(
                        "study.completed source=%s study=%d instances=%d cause=%s",
                        study.source,
                        study.id,
                        study.instances,
                        cause,
                    )

    def _causes(self, now: datetime) -> dict[str, list[StudyProgress]]:
        """Return the studies that are complete by now, by what says so; in a worker thread."""
        found: dict[str, list[StudyProgress]] = {}
        for study in open_studies(self._store.readers.connection):
            cause = self._cause(study, now)
            if cause is not None:
                found.setdefault(cause, []).append(study)
        return found

    def _cause(self, study: StudyProgress, now: datetime) -> str | None:
        connection = self._store.readers.connection
        steps = steps_of_study(connection, study.study_instance_uid)
        if steps and all(step.state.final for step in steps):
            made = {uid for step in steps for _, uid in performed_instances(step)}
            if made and len(newest_held(connection, made)) == len(made):
                return "mpps"
        # A clock that was set back makes a study wait, not hurry.
        return "age" if (now - study.last_at).total_seconds() >= self._stable_s(study.source) else None

    async def _owe(self) -> bool:
        """Make Deliveries for complete studies, a bounded piece of each; return whether more waits."""
        owing = await asyncio.to_thread(lambda: owing_studies(self._store.readers.connection))
        more = False
        for study in owing:
            router = self._router()
            late, until = await asyncio.to_thread(self._late, router, study)
            await asyncio.wrap_future(
                self._store.call(lambda c, s=study, p=late, u=until: self._store.acts.owe_study(c, s, p, u))  # type: ignore[misc]
            )
            self._owed({name for _, names, _ in late for name in names})
            more = more or until < study.last_message
        return more

    def _late(self, router: Router, study: StudyProgress) -> tuple[list[tuple[int, tuple[str, ...], bool]], int]:
        """Return the next Messages of a study with whom they are owed to and whether it is urgent; and how far.

        Also what is owed at once by now: a Message that came while a route still waited for its study, or before the
        route stood there, has it coming.
        """
        connection = self._store.readers.connection
        numbers = messages_of_study(connection, study, study.owed_until)
        late = []
        for number in numbers:
            message = read_message(connection, number)
            if message is None:
                continue
            names = {*router.owed_when_complete(message).destinations, *router.owed(message).destinations}
            if missing := not_owed(connection, number, sorted(names)):
                late.append((number, missing, router.is_urgent(message)))
        return late, numbers[-1] if numbers else study.last_message


def _follow(
    connection: Any,
    until: int,
    instances: Sequence[NewInstance],
    differing: dict[tuple[str, str], frozenset[str]],
    conflicts: Sequence[Conflict],
) -> None:
    """Write what a round has learned, in one transaction."""
    follow(connection, until, instances, differing)
    if conflicts:
        note_conflicts(connection, conflicts)
