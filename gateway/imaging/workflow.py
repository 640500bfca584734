"""The scheduled workflow's parts, put together for one agent: MPPS, commitment, and the watch over studies.

A Source takes from here the services that it is configured for; the agent runs `tasks`. All state is in the store, so
that nothing is lost when a Source is stopped and started by a new configuration.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from gateway.alarms import Alarms
from gateway.clock import Clock
from gateway.config import Config, DicomDestination, DicomSource
from gateway.dataset import Attributes, Element, text_at
from gateway.formats.order_status import with_numbers
from gateway.formats.worklist_tags import OTHER_IDS, PATIENT_ID
from gateway.imaging.commitment import COMMITMENT_SOP_CLASS, N_ACTION_RQ, CommitmentPolicy, CommitmentRequests
from gateway.imaging.commitment_reports import CommitmentReports
from gateway.imaging.committed import N_EVENT_REPORT_RQ, CommitmentAnswers, Committer
from gateway.imaging.demographics import COMPARED
from gateway.imaging.finding import Finding
from gateway.imaging.holdings import Holdings
from gateway.imaging.move_destinations import MoveDestination, MoveDestinations, named_in
from gateway.imaging.mpps import MPPS_SOP_CLASS, N_CREATE_RQ, N_SET_RQ, ProcedureSteps
from gateway.imaging.negotiation import Associated, Extend, Offer
from gateway.imaging.order_priority import OrderPriority
from gateway.imaging.query import C_FIND_RQ, C_GET_RQ, C_MOVE_RQ, Root, is_query, relational
from gateway.imaging.retrieving import Getting, Moving, Retrieving
from gateway.imaging.rewriting import FORMER
from gateway.imaging.service import Service
from gateway.imaging.studies import StudyWatch
from gateway.imaging.worklist import WORKLIST_SOP_CLASS, Worklist
from gateway.intake import Intake
from gateway.model import DeliveryState
from gateway.orders import ScheduledStep
from gateway.spool import Spool
from gateway.store.commitments import HeldInstance, NewCommitment, archive_states, keep_commitment
from gateway.store.steps import find_step, order_numbers
from gateway.store.store import Store
from gateway.store.worklist import find_item

STABLE_S = 60.0  # of a Source that is configured no more


class Workflow:
    """One for the agent; `config` is asked for anew each time, because it may be reloaded."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        intake: Intake,
        clock: Clock,
        alarms: Alarms,
        *,
        config: Callable[[], Config],
        owed: Callable[[Iterable[str]], None],
        owed_again: Callable[[str], None],
    ) -> None:
        """Take the parts; `owed` hears on the loop which Destinations have new Deliveries, `owed_again` old ones."""
        self._store = store
        self._config = config
        self._reports = CommitmentReports(store, spool, clock, alarms, policies=self._policy, archived=self._archived)
        self._steps = ProcedureSteps(
            intake,
            lambda uid: find_step(store.readers.connection, uid),
            self._find_item,
            lambda source: intake.router.keywords(source),
        )
        self._worklist = Worklist(store, clock, lambda: config().worklist)
        self._requests = CommitmentRequests(self._keep, self._reports.wake)
        self._holdings = Holdings(store, spool)
        self._finding = Finding(store, self._holdings)
        self._retrieving = Retrieving(store, self._holdings, spool)
        self._clock = clock
        self._alarms = alarms
        self._answers = CommitmentAnswers(store, clock, alarms, self._archives, owed_again)
        self.order_priority = OrderPriority(self._find_item, clock)
        self._studies = StudyWatch(
            store,
            clock,
            alarms,
            router=lambda: intake.router,
            find_item=self._find_item,
            stable_s=self._stable_s,
            owed=owed,
        )

    def offer(self, source: DicomSource) -> Offer:
        """Return what a Source offers of this."""
        services: dict[tuple[int, str], Service] = {}
        associated: dict[str, Associated] = {}
        if "mpps" in source.services:
            services |= {(N_CREATE_RQ, MPPS_SOP_CLASS): self._steps, (N_SET_RQ, MPPS_SOP_CLASS): self._steps}
        if "worklist" in source.services:
            services[C_FIND_RQ, WORKLIST_SOP_CLASS] = self._worklist
        if "commitment" in source.services:
            services[N_ACTION_RQ, COMMITMENT_SOP_CLASS] = self._requests
            associated[COMMITMENT_SOP_CLASS] = self._reports.associated
        extended: dict[str, Extend] = {}
        if "query" in source.services:
            services |= self._query(source)
            extended = {uid: relational for _, uid in services if is_query(uid)}
        if self._archives():
            services[N_EVENT_REPORT_RQ, COMMITMENT_SOP_CLASS] = self._answers
        return Offer(services=services, extended=extended, associated=associated)

    def committer(self, destination: DicomDestination, noted: Callable[[int], None]) -> Committer:
        """Return what asks an archive to commit to what it was sent; `noted` hears how many wait for that."""
        return Committer(destination, self._store, self._clock, self._alarms, self._answers, noted)

    def demographics(self, header: Mapping[str, str]) -> dict[str, str] | None:
        """Return what the worklist says of an Instance's patient, by keyword; None where it has no item."""
        study, accession = header.get("StudyInstanceUID", ""), header.get("AccessionNumber", "")
        item = self._find_item(ScheduledStep(study_instance_uid=study, accession_number=accession))
        tags = COMPARED | {"IssuerOfPatientID": 0x00100021}
        if item is None:
            return None
        others = item.get(OTHER_IDS, Element("SQ")).items
        former = "\\".join(text_at(each, PATIENT_ID) for each in others)
        return {keyword: text_at(item, tag) for keyword, tag in tags.items()} | {FORMER: former}

    @property
    def tasks(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """Return what runs as long as the agent does, by name."""
        return {"studies": self._studies.run, "commitment": self._reports.run, "holdings": self._holdings.run}

    def _query(self, source: DicomSource) -> dict[tuple[int, str], Service]:
        """Return Query/Retrieve over what the box holds, in both information models."""

        def named() -> Mapping[str, MoveDestination]:
            config = self._config()
            clean = {name for route in config.routes if route.deidentify for name in route.to}
            open_to_all = [each for each in config.destinations if each.name not in clean]  # C-MOVE changes nothing
            return named_in(source, open_to_all)

        dial = MoveDestinations(named, self._clock)
        moving, getting = Moving(self._retrieving, dial), Getting(self._retrieving)
        services: dict[tuple[int, str], Service] = {}
        for root in Root:
            services |= {
                (C_FIND_RQ, root.find): self._finding,
                (C_MOVE_RQ, root.move): moving,
                (C_GET_RQ, root.get): getting,
            }
        return services

    async def _keep(self, new: NewCommitment) -> bool:
        return await asyncio.wrap_future(self._store.call(lambda c: keep_commitment(c, new)))

    def _find_item(self, step: ScheduledStep) -> Attributes | None:
        """Return the worklist item that a step was scheduled as, with its order numbers; in a worker thread."""
        connection = self._store.readers.connection
        item = find_item(connection, step)
        return None if item is None else with_numbers(item.attributes, *order_numbers(connection, item.id))

    def _archives(self) -> list[DicomDestination]:
        """Return the Destinations that are asked to commit."""
        found = (each for each in self._config().destinations if isinstance(each, DicomDestination))
        return [each for each in found if each.commitment]

    def _source(self, name: str) -> DicomSource | None:
        found = (each for each in self._config().sources if each.name == name)
        return next((each for each in found if isinstance(each, DicomSource)), None)

    def _stable_s(self, name: str) -> float:
        source = self._source(name)
        return STABLE_S if source is None else source.study_stable_s

    def _policy(self, name: str) -> CommitmentPolicy | None:
        source = self._source(name)
        if source is None:
            return None
        return CommitmentPolicy(
            archive=source.commitment == "archive",
            archives=tuple(each.name for each in self._archives()),
            timeout_s=source.commitment_timeout_hours * 3600.0,
            peers=source.peers,
        )

    def _archived(self, held: HeldInstance, archives: Sequence[str]) -> bool | None:
        """Return whether all archives that an Instance is owed to have committed, None where it is owed to none."""
        found = archive_states(self._store.readers.connection, held.message_id, archives)
        owed = [committed for state, committed in found if state is not DeliveryState.DISCARDED]
        return all(owed) if owed else None
