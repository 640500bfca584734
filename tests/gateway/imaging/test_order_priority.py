"""How urgent the order of an Instance is, asked of the worklist."""

from gateway.clock import ManualClock
from gateway.dataset import Attributes, Element
from gateway.imaging.order_priority import KNOWN_MAX, KNOWN_S, TAG, OrderPriority
from gateway.orders import ScheduledStep

HEADER = {"StudyInstanceUID": "1.5", "AccessionNumber": "A1"}


class Items:
    """A worklist that notes what it was asked."""

    def __init__(self, said: str | None) -> None:
        self.said = said
        self.asked: list[ScheduledStep] = []
        self.fails = False

    def __call__(self, step: ScheduledStep) -> Attributes | None:
        self.asked.append(step)
        if self.fails:
            raise OSError("the disk")
        return None if self.said is None else {TAG: Element("SH", (self.said,))}


def test_what_the_worklist_says_is_known_for_a_while() -> None:
    items, clock = Items("STAT "), ManualClock()
    priority = OrderPriority(items, clock)

    assert [priority(HEADER), priority(HEADER)] == ["STAT", "STAT"]
    assert items.asked == [ScheduledStep(study_instance_uid="1.5", accession_number="A1")]

    items.said = None
    clock.advance(KNOWN_S)
    assert priority(HEADER) == ""


def test_what_belongs_to_no_order_is_not_asked_for() -> None:
    items = Items("STAT")

    assert OrderPriority(items, ManualClock())({"Modality": "CT"}) == ""
    assert items.asked == []


def test_a_worklist_that_cannot_be_read_makes_nothing_urgent_and_refuses_nothing() -> None:
    items, clock = Items("STAT"), ManualClock()
    items.fails = True
    priority = OrderPriority(items, clock)
    assert priority(HEADER) == ""

    items.fails = False
    clock.advance(KNOWN_S)
    assert priority(HEADER) == "STAT"


def test_of_many_studies_the_newest_are_remembered() -> None:
    items = Items("HIGH")
    priority = OrderPriority(items, ManualClock())
    for number in range(KNOWN_MAX + 1):
        priority({"StudyInstanceUID": f"1.{number}"})
    asked = len(items.asked)

    priority({"StudyInstanceUID": f"1.{KNOWN_MAX}"})
    assert len(items.asked) == asked
    priority({"StudyInstanceUID": "1.0"})
    assert len(items.asked) == asked + 1
