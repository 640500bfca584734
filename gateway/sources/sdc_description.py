"""The description of an SDC Device, indexed: what stands where, which waves are wanted, which alarms watch what."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from gateway.formats.sdc import is_wanted
from gateway.formats.sdc_facts import Descriptor, Host, Mdib, Part
from gateway.formats.sdc_tree import identity, paths, rows
from gateway.model import Containment, DeviceIdentity

DEPTH_MAX = 10  # levels that are climbed to an entry's MDS


@dataclass(frozen=True, kw_only=True)
class Description:
    """One description, with the containment path of each level and metric by handle."""

    host: Host
    by_handle: Mapping[str, Descriptor]
    subs: Mapping[str, str]
    waves: frozenset[str]  # handles of those that were asked for

    @cached_property
    def tops(self) -> tuple[Descriptor, ...]:
        """Return the Device systems."""
        return tuple(one for one in self.by_handle.values() if one.part is Part.MDS and one.handle in self.subs)

    @cached_property
    def watchers(self) -> Mapping[str, tuple[Descriptor, ...]]:
        """Return the alert conditions that watch each handle."""
        found: dict[str, tuple[Descriptor, ...]] = {}
        for one in self.by_handle.values():
            if one.part is Part.CONDITION:
                for source in one.sources:
                    found[source] = (*found.get(source, ()), one)
        return found

    @cached_property
    def signals(self) -> Mapping[str, tuple[Descriptor, ...]]:
        """Return the signals that show each condition."""
        found: dict[str, tuple[Descriptor, ...]] = {}
        for one in self.by_handle.values():
            if one.part is Part.SIGNAL and one.signals is not None:
                found[one.signals] = (*found.get(one.signals, ()), one)
        return found

    @property
    def unread(self) -> int:
        """Return how many metrics are of a sort that is not read: distributions (spectra)."""
        return sum(one.part is Part.DISTRIBUTION for one in self.by_handle.values())

    def top_of(self, handle: str) -> str | None:
        """Return the handle of the MDS that an entry belongs to; None for what hangs nowhere."""
        one = self.by_handle.get(handle)
        for _ in range(DEPTH_MAX):
            if one is None or one.part is Part.MDS:
                break
            one = self.by_handle.get(one.parent or "")
        return one.handle if one is not None and one.part is Part.MDS and one.handle in self.subs else None

    def levels(self, top: str, subs: tuple[str, ...]) -> tuple[Containment, ...]:
        """Return the device rows above metrics of one MDS; its own is always among them."""
        return rows(self.by_handle.values(), self.subs, (self.subs[top], *subs))

    def identity(self, top: str) -> DeviceIdentity:
        """Return who an MDS is."""
        return identity(self.by_handle[top].label, self.host, alone=len(self.tops) == 1)


def described(mdib: Mdib, waves: tuple[str, ...], before: Mapping[str, str]) -> Description:
    """Return an MDIB's description; `before` are the paths of the last one, which are kept."""
    by_handle = {one.handle: one for one in mdib.descriptors}
    known = before if len(before) < 2 * len(by_handle) + 100 else {}  # a Device with ever new handles starts afresh
    return Description(
        host=mdib.host,
        by_handle=by_handle,
        subs=paths(mdib.descriptors, known),
        waves=frozenset(one.handle for one in mdib.descriptors if one.part is Part.WAVE and is_wanted(one, waves)),
    )
