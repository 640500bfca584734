"""What analysers ask (Q records), and the records that answer them (LIS02-A2, 8 to 12)."""

from collections.abc import Sequence

from gateway.formats.astm import Delimiters, read_records, write_record
from gateway.laboratory import LabOrder, LabQuery

TESTS_MAX = 200
ALL = "ALL"


def query_of(text: str) -> LabQuery | None:
    """Return the first question in a message, None where there is none."""
    for record in read_records(text):
        if record.type == "Q":
            patient, sample = (*record.components(3), "", "")[:2]
            tests = [next((part for part in parts if part), "") for parts in record.repeats(5)]
            return LabQuery(
                sample_id=sample or (patient if len(record.components(3)) == 1 else "") or None,
                patient_id=patient or None,
                tests=tuple(test for test in tests[:TESTS_MAX] if test and test != ALL),
                sequence=record.text(2) or "1",
                delimiters=str(record.delimiters),
            )
    return None


def answer_to(query: LabQuery, orders: Sequence[LabOrder]) -> list[str]:
    """Return the records of an answer: H, P and O for each order, L; where nothing is ordered L says so (code I)."""
    marks = Delimiters(*query.delimiters)
    records = [f"H{marks}" + marks.field * 10 + f"P{marks.field}1"]
    for number, order in enumerate(orders, 1):
        tests = marks.repeat.join(f"{marks.component * 3}{_plain(test, marks)}" for test in order.tests[:TESTS_MAX])
        when = order.ordered_at.strftime("%Y%m%d%H%M%S") if order.ordered_at else ""
        name = order.name.split("^")
        records.append(
            write_record(marks, "P", str(number), order.patient_id, "", "", name, "", order.birth_date, order.sex)
        )
        head = write_record(marks, "O", "1", order.sample_id)
        records.append(
            f"{head}{marks.field * 2}{tests}{marks.field}{'S' if order.urgent else 'R'}{marks.field}{when}"
            f"{marks.field * 5}A{marks.field * 14}Q"
        )
    records.append(write_record(marks, "L", "1", "N" if orders else "I"))
    return records


def _plain(text: str, marks: Delimiters) -> str:
    return write_record(marks, text)
