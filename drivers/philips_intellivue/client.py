"""The client's side of an association: what to say to a monitor, and when (sheet section 5.2).

    unassociated --ask--> asking --Accept--> awaiting MDS --MDS Create--> operating
          ^                  | Refuse: pause     | silence       | Abort, silence, Release
          '------------------+-------------------+---------------'

Nothing here knows bytes on a line: messages come in as calls, user data goes out by `take`. The monitor copes with
four frames in 128 ms; requests are paced to four in 256 ms.
"""

from collections import deque
from enum import Enum

from drivers.philips_intellivue import requests
from drivers.philips_intellivue.polls import Poll, plan
from drivers.philips_intellivue.requests import Accepted, Extension

ASK_AGAIN_S = 2.0
REFUSED_PAUSE_S = 10.0
ABORTED_PAUSE_S = 1.0
MDS_TIMEOUT_S = 10.0
LOST_S = 6.0  # public clients take 5 s; a keep-alive's answer must have time to come
KEEP_ALIVE_S = 4.0
PACE_S, PACE_FRAMES = 0.256, 4
WAITING_MAX = 32


class State(Enum):
    """Where the association stands."""

    UNASSOCIATED = "unassociated"
    ASKING = "asking"
    AWAITING_MDS = "awaiting MDS"
    OPERATING = "operating"


class Client:
    """Drives one association; `wanted` are the waves to set on the monitor, none leaves its list and waves alone."""

    def __init__(self, *, extensions: Extension, mtu: int, period_s: float, wanted: tuple[int, ...]) -> None:
        self._extensions = extensions
        self._mtu = mtu
        self._period_s = period_s
        self._wanted = wanted
        self.state = State.UNASSOCIATED
        self.refused = False
        self.accepted: Accepted | None = None
        self._ask_at = float("-inf")
        self._since = 0.0  # in this state
        self._heard_at = 0.0
        self._said_at = 0.0
        self._stale = False  # the monitor still speaks to an association that we no longer know
        self._invoke = 0
        self._polls: list[Poll] = []
        self._waiting: deque[bytes] = deque(maxlen=WAITING_MAX)
        self._said: deque[float] = deque(maxlen=PACE_FRAMES)

    @property
    def deadline(self) -> float:
        """Return when to say something or to give up; the past for at once."""
        if self._waiting:
            return self._free_at
        match self.state:
            case State.UNASSOCIATED | State.ASKING:
                return self._ask_at
            case State.AWAITING_MDS:
                return self._since + MDS_TIMEOUT_S
            case State.OPERATING:
                return min(max(self._free_at, self._next_poll_at), self._keep_alive_at, self._heard_at + LOST_S)

    def take(self, now: float) -> bytes | None:
        """Return the next message to say, None when nothing is due; call until None."""
        self._decide(now)
        if not self._waiting or now < self._free_at:
            return None
        self._said.append(now)
        self._said_at = now
        return self._waiting.popleft()

    def accept(self, accepted: Accepted, now: float) -> None:
        """Take an Association Accept."""
        self.accepted, self.refused, self._stale = accepted, False, False
        self._enter(State.AWAITING_MDS, now)

    def refuse(self, now: float) -> None:
        """Take an Association Refuse: another client may hold the association."""
        self.refused = True
        self._leave(now, pause_s=REFUSED_PAUSE_S)

    def end(self, now: float) -> None:
        """Take an Abort or the answer to a Release: all polls are gone."""
        if self.state in (State.AWAITING_MDS, State.OPERATING):
            self._leave(now, pause_s=ABORTED_PAUSE_S)

    def part(self) -> bytes | None:
        """Return the last word of a client that goes, None where there is no association; nothing is said after it."""
        held = self.state in (State.AWAITING_MDS, State.OPERATING)
        self._waiting.clear()
        self.state, self._ask_at = State.UNASSOCIATED, float("inf")
        return requests.RELEASE_REQUEST_DATA if held else None

    def announced(self, now: float) -> None:
        """Take a Connect Indication: the monitor is there and not associated."""
        if self.state in (State.UNASSOCIATED, State.ASKING) and not self.refused:
            self._ask_at = min(self._ask_at, max(now, self._said_at + ABORTED_PAUSE_S))

    def created(self, invoke: int, ticks: int, now: float) -> None:
        """Take an MDS Create Event: answer every copy, then ask for everything anew."""
        if self.state is State.UNASSOCIATED:
            self.accepted = None
        self._enter(State.OPERATING, now)
        self.refused, self._heard_at = False, now
        self._waiting.clear()
        self._waiting.append(requests.mds_created(invoke, ticks))
        if self._wanted:
            self._waiting.append(requests.get_wave_list(self._next_invoke()))
            self._waiting.append(requests.set_wave_list(self._next_invoke(), self._wanted))
        self._polls = plan(self.accepted, self._period_s, bool(self._wanted))

    def heard(self, now: float) -> None:
        """Take notice of any sound message."""
        self._heard_at = now
        self._stale = self._stale or self.state in (State.UNASSOCIATED, State.ASKING)

    def answered(self, number: int, invoke: int, now: float) -> None:
        """Take notice of the result of a poll."""
        for poll in self._polls:
            if poll.number == number or poll.invoke == invoke:
                poll.heard_at = now

    def denied(self, invoke: int, now: float) -> Poll | None:
        """Take an error; return the poll that the monitor refused, None when it was no poll."""
        for poll in self._polls:
            if poll.invoke == invoke:
                poll.refuse(now)
                return poll
        return None

    @property
    def _free_at(self) -> float:
        full = len(self._said) == PACE_FRAMES
        return self._said[0] + PACE_S if full else float("-inf")

    @property
    def _next_poll_at(self) -> float:
        return min((poll.due for poll in self._polls), default=float("inf"))

    @property
    def _keep_alive_at(self) -> float:
        return self._said_at + min(KEEP_ALIVE_S, (self.accepted.timeout_s if self.accepted else 10.0) / 2)

    def _decide(self, now: float) -> None:
        """Put into the queue what is due; one thing at a time, so that pacing orders them."""
        if self._waiting:
            return
        match self.state:
            case State.UNASSOCIATED | State.ASKING if now >= self._ask_at:
                self._ask(now)
            case State.AWAITING_MDS if now >= self._since + MDS_TIMEOUT_S:
                self._give_up(now)
            case State.OPERATING if now >= self._heard_at + LOST_S:
                self._give_up(now)
            case State.OPERATING if now >= self._free_at:
                self._poll(now)

    def _ask(self, now: float) -> None:
        if self._stale:
            self._waiting.append(requests.RELEASE_REQUEST_DATA)
            self._stale = False
        self._waiting.append(requests.association_request(self._extensions, self._mtu))
        self._enter(State.ASKING, now)
        self._ask_at = now + ASK_AGAIN_S

    def _poll(self, now: float) -> None:
        poll = min(self._polls, key=lambda poll: poll.due, default=None)
        if poll is not None and poll.due <= now:
            self._waiting.append(poll.ask(self._next_invoke(), now))
        elif now >= self._keep_alive_at:
            keep_alive = requests.poll(self._next_invoke(), 9, requests.CLASS_ALERTS, requests.GROUP_STATIC)
            self._waiting.append(keep_alive)

    def _give_up(self, now: float) -> None:
        self._leave(now, pause_s=ABORTED_PAUSE_S)
        self._waiting.append(requests.RELEASE_REQUEST_DATA)

    def _leave(self, now: float, pause_s: float) -> None:
        self._enter(State.UNASSOCIATED, now)
        self._ask_at = now + pause_s
        self._waiting.clear()
        self._polls = []

    def _enter(self, state: State, now: float) -> None:
        self.state, self._since = state, now

    def _next_invoke(self) -> int:
        self._invoke = self._invoke % 0xFFFF + 1
        return self._invoke
