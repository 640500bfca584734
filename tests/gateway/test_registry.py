from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import pytest

from gateway import registry
from gateway.driver import About, Session
from gateway.registry import create_driver, driver_names, installed_drivers


@dataclass(frozen=True, kw_only=True)
class Acme:
    about: ClassVar[About] = About(name="acme", summary="", models=(), source="")

    code: str = "x"

    def open(self) -> Session:
        raise NotImplementedError


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three entry points: one driver, one that cannot be imported, one that is no driver."""
    found = {
        "acme": EntryPoint("acme", f"{__name__}:Acme", registry.GROUP),
        "broken": EntryPoint("broken", "no_such_module_at_all:Broken", registry.GROUP),
        "wrong": EntryPoint("wrong", "json:dumps", registry.GROUP),
    }
    monkeypatch.setattr(EntryPoint, "load", _load)
    monkeypatch.setattr(registry, "_found", lambda: found)


def _load(entry: EntryPoint) -> Any:
    if entry.name == "broken":
        raise ModuleNotFoundError("No module named 'no_such_module_at_all'")
    return Acme if entry.name == "acme" else len


def test_a_driver_is_built_from_its_options(plugins: None) -> None:
    assert create_driver("acme", {"code": "y"}) == (Acme(code="y"), ())


def test_a_fault_of_an_option_has_its_place(plugins: None) -> None:
    driver, faults = create_driver("acme", {"cod": "y"}, ("source", 1))

    assert driver is None
    assert [str(fault) for fault in faults] == ["source[1].options.cod: unknown key 'cod' (did you mean 'code'?)"]


def test_an_unknown_driver_gets_the_nearest_name(plugins: None) -> None:
    _, faults = create_driver("amce", {}, ("source", 0))

    assert str(faults[0]) == (
        "source[0].driver: unknown driver 'amce' (did you mean 'acme'?); installed are acme, broken, wrong"
    )


@pytest.mark.parametrize(("name", "reason"), [("broken", "could not be imported"), ("wrong", "is no driver")])
def test_a_driver_that_cannot_be_had_says_why(plugins: None, name: str, reason: str) -> None:
    _, faults = create_driver(name, {})

    assert reason in faults[0].text


def test_a_broken_driver_hides_no_other(plugins: None) -> None:
    assert installed_drivers() == {"acme": Acme}
    assert driver_names() == ("acme", "broken", "wrong")


def test_the_installed_drivers_are_found_by_entry_point() -> None:
    assert set(installed_drivers()) == set(driver_names())
    for name, driver in installed_drivers().items():
        assert driver.about.name == name
        assert create_driver(name, {}) == (driver(), ())
