"""The stanza of gateway.toml that a probe's finding becomes."""

import json
import re
from dataclasses import fields

from gateway.driver import Driver, LineSettings
from gateway.net.ports import stable_name
from gateway.probing.judging import Finding
from gateway.probing.plan import has_line, has_transmit

_NOT_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def stanza_of(finding: Finding, port: str, driver: type[Driver]) -> str:
    """Return what to paste into gateway.toml, ended by a line end.

    The port has the name that stays the same when the adapter is plugged elsewhere; line settings stand in it where
    they are not the driver's own.
    """
    name = _NOT_NAME.sub("-", f"{finding.driver}-{port.rsplit('/', 1)[-1]}")[:64].strip("-")
    told = " ".join(part for part in (finding.device.manufacturer, finding.device.model) if part)
    lines = [f"# {_plain(told) or finding.summary}"] if told or finding.summary else []
    lines += ["[[source]]", f'name = "{name}"', 'type = "device"', f'driver = "{finding.driver}"']
    lines.append(f"port = {json.dumps(stable_name(port))}")
    if has_line(port) and (line := _line(finding.line, driver.about.line)):
        lines.append(f"line = {line}")
    lines.append('bed = ""  # point of care^room^bed, as in the EMR')
    if finding.passive and finding.readings and _asks(driver):
        lines.append("options = { transmit = false }  # somebody asks it already; true to ask ourselves")
    return "\n".join(lines) + "\n"


def _asks(driver: type[Driver]) -> bool:
    return not driver.about.talks and has_transmit(driver)


def _line(found: LineSettings, default: LineSettings) -> str:
    told = []
    for one in fields(found):
        value = getattr(found, one.name)
        if value != getattr(default, one.name):
            told.append(f"{one.name} = {json.dumps(value)}")
    return f"{{ {', '.join(told)} }}" if told else ""


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())
