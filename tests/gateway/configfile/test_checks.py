import os
import pty
import select
import signal
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from gateway.configfile import Loaded, load
from gateway.driver import About, Session


@dataclass(frozen=True, kw_only=True)
class Acme:
    about: ClassVar[About] = About(name="acme", summary="", models=(), source="")

    waves: tuple[str, ...] = ()

    def open(self) -> Session:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


def check(text: str) -> Loaded:
    path = Path("gateway.toml")
    path.write_text(text)
    return load(path, drivers={"acme": Acme})


def faults(text: str) -> list[str]:
    return [str(placed.fault) for placed in check(text).faults]


def warnings(text: str) -> list[str]:
    return [str(placed.fault) for placed in check(text).warnings]


def mllp(name: str, listen: str, more: str = "") -> str:
    return f'[[source]]\nname = "{name}"\ntype = "mllp"\nlisten = "{listen}"\n{more}\n'


def dicom(name: str, listen: str) -> str:
    return f'[[source]]\nname = "{name}"\ntype = "dicom"\nlisten = "{listen}"\n'


def device(name: str, port: str, more: str = "") -> str:
    return f'[[source]]\nname = "{name}"\ntype = "device"\ndriver = "acme"\nport = "{port}"\n{more}\n'


def emr(name: str = "emr", more: str = "") -> str:
    return f'[[destination]]\nname = "{name}"\ntype = "mllp"\nhost = "h"\nport = 1\n{more}\n'


def pacs(name: str = "pacs") -> str:
    return f'[[destination]]\nname = "{name}"\ntype = "dicom"\nhost = "h"\nport = 1\nae_title = "A"\n'


def broker(more: str, url: str = "mqtts://h:8883") -> str:
    return f'[[destination]]\nname = "broker"\ntype = "mqtt"\nurl = "{url}"\n{more}\n'


def route(sources: str, to: str, when: str = "") -> str:
    return f'[[route]]\nfrom = ["{sources}"]\nto = {to}\n{when}\n'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("127.0.0.1:2575", "127.0.0.1:2575"),
        ("0.0.0.0:2575", "10.0.0.1:2575"),
        ("10.0.0.1:2575", "[::]:2575"),
        ("localhost:2575", "127.0.0.1:2575"),
    ],
)
def test_two_listeners_on_one_port_are_a_fault(one: str, other: str) -> None:
    (fault,) = faults(mllp("a", one) + dicom("b", other))

    assert fault.startswith("source[1].listen: duplicate port")
    assert "source 'a' at gateway.toml:4:1" in fault


@pytest.mark.parametrize(
    ("one", "other"),
    [("127.0.0.1:2575", "127.0.0.1:2576"), ("10.0.0.1:2575", "10.0.0.2:2575"), ("127.0.0.1:0", "127.0.0.1:0")],
)
def test_listeners_that_do_not_meet_are_none(one: str, other: str) -> None:
    assert faults(mllp("a", one) + dicom("b", other)) == []


def test_the_console_is_a_listener_too() -> None:
    assert "taken by the console, which listens there unless" in faults(mllp("a", "0.0.0.0:8080"))[0]
    text = '[console]\nlisten = "127.0.0.1:9000"\n'
    assert "taken by the console at gateway.toml:2:1" in faults(text + mllp("a", "127.0.0.1:9000"))[0]
    assert faults(text + mllp("a", "127.0.0.1:8080")) == []


def test_two_devices_on_one_port_are_a_fault() -> None:
    (fault,) = faults(device("a", "/dev/ttyS0") + device("b", "/dev/ttyS0"))

    assert fault == "source[1].port: duplicate port: '/dev/ttyS0' is taken by source 'a' at gateway.toml:5:1"


def test_a_device_that_is_listened_for_takes_a_port_like_any_listener() -> None:
    (fault,) = faults(mllp("a", "0.0.0.0:5001") + device("b", "listen://127.0.0.1:5001"))

    assert fault == ("source[1].port: duplicate port: 127.0.0.1:5001 is taken by source 'a' at gateway.toml:4:1")


def test_two_names_of_one_port_are_seen_as_one(tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to("/dev/null")
    Path("link").symlink_to(tmp_path / "by-id")

    (fault,) = [
        each for each in faults(device("a", "/dev/null") + device("b", f"{tmp_path}/link")) if "duplicate" in each
    ]

    assert fault.startswith("source[1].port")


def test_a_recording_may_be_replayed_twice() -> None:
    assert faults(device("a", "replay:x") + device("b", "replay:x")) == []


@pytest.mark.parametrize(
    "port",
    [
        "/run/pty",
        "tcp://h:1",
        "listen://[::]:5001",
        "udp://[::1]:5",
        "socket://h:65535",
        "rfc2217://h:1?logging=debug",
        "replay:f",
    ],
)
def test_a_stream_is_named_by_its_scheme(port: str) -> None:
    assert faults(device("a", port)) == []


@pytest.mark.parametrize("port", ["ttyS0", "COM1", "http://h:1", "tcp://h", "tcp://h:0", "tcp://h:70000", "replay:"])
def test_a_port_that_cannot_be_opened_is_a_fault(port: str) -> None:
    (fault,) = faults(device("a", port))

    assert fault.startswith("source[0].port: ")


def test_options_are_built_from_the_drivers_dataclass() -> None:
    assert faults(device("a", "/dev/x", 'options = { waves = ["ecg"] }')) == []
    assert faults(device("a", "/dev/x", "options = { waves = [1] }")) == [
        "source[0].options.waves[0]: expected text, got the number 1"
    ]


def test_an_encoding_must_be_known() -> None:
    for right in ("iso-8859-15", "latin-1", "shift_jis", "gb18030", "windows-1251"):
        assert faults(mllp("a", "h:1", f'encoding = "{right}"')) == []
    for wrong in ("utf-88", "hex", "utf-16", ""):
        assert "unknown encoding" in faults(mllp("a", "h:1", f'encoding = "{wrong}"'))[0]


def test_a_route_names_sources_and_destinations_that_exist() -> None:
    text = mllp("emr-in", "h:1") + emr("emr-out") + route("emr-on", '["emr-uot"]') + route("emr-*", '["emr-out"]')

    assert faults(text) == [
        "route[0].from[0]: 'emr-on' matches no source (did you mean 'emr-in'?)",
        "route[0].to[0]: there is no destination 'emr-uot' (did you mean 'emr-out'?)",
    ]


def test_an_unnamed_source_draws_no_faults_of_routes_after_it() -> None:
    text = '[[source]]\nnam = "a"\ntype = "mllp"\nlisten = "h:1"\n' + emr() + route("a", '["emr"]')

    assert [fault.partition(":")[0] for fault in faults(text)] == ["source[0].name", "source[0].nam"]


def test_a_route_must_say_from_where_and_to_where() -> None:
    text = mllp("a", "h:1") + emr() + "[[route]]\nfrom = []\nto = []\n"

    assert faults(text) == [
        "route[0].from: expected at least 1 in the list, got 0",
        "route[0].to: expected at least 1 in the list, got 0",
    ]


def test_what_no_destination_of_a_route_can_carry_is_a_fault() -> None:
    images = dicom("imaging", "h:1")

    assert faults(images + emr() + route("imaging", '["emr"]')) == [
        "route[0].to: dicom comes in, only hl7 and observations can go out"
    ]
    assert faults(images + emr()) == ["destination[0]: dicom comes in, only hl7 and observations can go out"]
    assert faults(device("bed", "/dev/x") + pacs() + route("bed", '["pacs"]')) == [
        "route[0].to: hl7 and observations comes in, only dicom can go out"
    ]


def test_one_destination_that_gets_nothing_of_a_route_is_a_warning() -> None:
    text = dicom("imaging", "h:1") + emr() + pacs() + route("imaging", '["emr", "pacs"]')

    assert faults(text) == []
    assert warnings(text) == [
        "route[0].to: nothing of this route goes to 'emr': dicom comes in, only hl7 and observations can go out"
    ]


def test_a_when_is_checked_for_the_kinds_that_come_by_its_route() -> None:
    text = mllp("in", "h:1") + emr() + route("in", '["emr"]', """when = 'Modality == "CT"'""")

    assert faults(text) == ["route[0].when: 'Modality' is a DICOM keyword, but only hl7 comes by this route"]


def test_a_fault_of_a_when_stands_at_its_character() -> None:
    text = mllp("in", "h:1") + emr() + route("in", '["emr"]', 'when = """\n  MSH-9.1 == "ORU" \\\n  and MHS-0 == 1"""')

    (fault,) = check(text).faults

    assert text.splitlines()[fault.place.line - 1][fault.place.column - 1 :].startswith("0 == 1")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-days", "2", "-nodes"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *subject]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=30)
    return cert, key


def test_tls_files_that_fit_are_no_fault(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    tls = f'tls = {{ cert = "{cert}", key = "{key}", ca = "{cert}", verify_client = true }}'

    assert faults(mllp("a", "h:1", tls)) == []


def test_tls_files_that_are_missing_or_wrong_are_faults(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    Path("no.pem").write_text("nothing")

    missing = faults(mllp("a", "h:1", f'tls = {{ cert = "{cert}", key = "nowhere.pem" }}'))
    swapped = faults(mllp("a", "h:1", f'tls = {{ cert = "{key}", key = "{cert}" }}'))
    empty = faults(mllp("a", "h:1", f'tls = {{ cert = "{cert}", key = "{key}", ca = "no.pem" }}'))

    assert missing == ["source[0].tls.key: nowhere.pem cannot be read: No such file or directory"]
    assert swapped[0].startswith("source[0].tls.cert: certificate and key cannot be used together")
    assert empty[0].startswith("source[0].tls.ca: holds no certificate")


def test_a_key_with_a_passphrase_never_asks_at_the_terminal(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    locked = key.with_name("locked.pem")
    command = ["openssl", "ec", "-aes128", "-passout", "pass:geheim", "-in", key, "-out", locked]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    Path("gateway.toml").write_text(mllp("a", "h:1", f'tls = {{ cert = "{cert}", key = "{locked}" }}'))

    said = said_at_a_terminal("print(*load(Path('gateway.toml'), drivers={}).faults)")

    assert "source[0].tls.cert: certificate and key cannot be used together" in said
    assert "phrase" not in said


def said_at_a_terminal(script: str) -> str:
    """Run a script whose terminal is a pty and return what appears there within 20 s."""
    imports = "from pathlib import Path; from gateway.configfile import load; "
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", imports + script])
    said = b""
    while select.select([terminal], [], [], 20.0)[0]:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # the other side has closed
            break
        if b"phrase" in said:
            os.kill(child, signal.SIGKILL)
            break
    os.close(terminal)
    os.waitpid(child, 0)
    return said.decode()


def test_tls_settings_that_need_each_other_are_checked() -> None:
    source = faults(mllp("a", "h:1", 'tls = { cert = "/dev/null", key = "/dev/null", verify_client = true }'))
    target = faults(emr(more='tls = { cert = "/dev/null" }'))

    assert any(fault.startswith("source[0].tls.verify_client: verify_client needs ca") for fault in source)
    assert target == ["destination[0].tls.cert: cert needs key beside it"]


def test_a_file_that_another_user_may_read_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied")

    text = emr(more='tls = { ca = "/etc/ca.pem" }')
    path = Path("gateway.toml")
    path.write_text(text)
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, mode="r": refuse(self) if self.name == "ca.pem" else opened(self, mode)
    )

    loaded = load(path)

    assert loaded.faults == ()
    assert "destination[0].tls.ca: /etc/ca.pem cannot be read by this user" in [
        str(warning.fault) for warning in loaded.warnings
    ]


def test_secrets_are_looked_for_where_that_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    credential = broker('password = { credential = "pw" }')
    environment = broker('password = { env = "NO_SUCH_VARIABLE" }')

    assert faults(broker('password = { file = "nowhere" }')) == [
        "destination[0].password.file: nowhere cannot be read: No such file or directory"
    ]
    assert faults(environment) == faults(credential) == []
    assert "NO_SUCH_VARIABLE is not set here" in warnings(environment)[0] + warnings(environment)[1]
    assert "only where systemd" in "".join(warnings(credential))

    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(Path.cwd()))
    assert faults(credential) == ["destination[0].password.credential: systemd gave no credential 'pw'"]
    Path("pw").write_text("x")
    assert faults(credential) == []


def test_an_inline_secret_is_a_fault_that_does_not_show_it() -> None:
    (fault,) = faults(broker('password = "hunter2"'))

    assert fault.startswith("destination[0].password: a secret is never written in this file")
    assert "hunter2" not in fault
    assert "hunter2" not in faults(broker("", url="mqtt://u:hunter2@h"))[0]


@pytest.mark.parametrize(
    ("host", "warned"), [("broker", True), ("10.0.0.1", True), ("localhost", False), ("[::1]", False)]
)
def test_a_password_in_the_clear_is_a_warning(host: str, warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "x")

    found = warnings(broker('password = { env = "PW" }', url=f"mqtt://{host}:1883"))

    assert any("in the clear" in each for each in found) is warned


def test_the_checks_open_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a port was opened")

    monkeypatch.setattr("socket.socket.bind", refuse, raising=False)
    monkeypatch.setattr("socket.socket.connect", refuse, raising=False)
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", refuse)

    assert faults(mllp("a", "127.0.0.1:1") + device("b", "tcp://h:1") + emr() + route("*", '["emr"]')) == []
