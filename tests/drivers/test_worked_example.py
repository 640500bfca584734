"""The driver in docs/writing-a-driver.md is a whole one."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gateway.driver import Driver

PAGE = Path(__file__).parents[2] / "docs" / "writing-a-driver.md"


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Driver:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    module = ModuleType("acme_glucose")
    monkeypatch.setitem(sys.modules, "acme_glucose", module)
    exec(compile(code[1], str(PAGE), "exec"), module.__dict__)
    return module.AcmeGlucose()


def test_the_worked_example_reads_its_line(acme: Driver) -> None:
    session = acme.open()
    session.receive(b"rest\r\nGLU,P1,105\r\nGLU,P1\r\n", 0.0)

    good, bad = session.take_readings()
    assert good.results[0].patient_id == "P1"
    assert (str(good.results[0].observations[0].value), good.results[0].observations[0].unit) == ("105", "mg/dL")
    assert bad.fault == "not a GLU line"
