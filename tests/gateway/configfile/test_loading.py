import errno
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config import Config, MllpSource
from gateway.configfile import LOCAL_FILE, effective_routes, find_config, load
from gateway.errors import ConfigError

MLLP_IN = '[[source]]\nname = "{0}"\ntype = "mllp"\nlisten = "127.0.0.1:{1}"\n'
NOTHING = "neither a source nor a destination stands here: was the file emptied?"
MLLP_OUT = '[[destination]]\nname = "{0}"\ntype = "mllp"\nhost = "h"\nport = 1\n'


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, so that places print as short as a person sees them."""
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "gateway.toml") -> Path:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def faults(text: str) -> list[str]:
    return [str(fault) for fault in load(write(text), drivers={}).faults]


def test_one_run_reports_everything_with_its_line() -> None:
    text = """\
[gateway]
nmae = "ward"

[[source]]
name = "emr"
type = "mllp"
listen = "0.0.0.0:2575"

[[source]]
name = "emr"
type = "mllp"
prot = 3
listen = "127.0.0.1:2575"

[[source]]
name = "bed-1"
type = "device"
driver = "nonin"
port = "/dev/ttyS0"
line = { baud = "9600" }

[[destination]]
name = "pacs"
type = "dicom"
host = "h"
port = 70000
ae_title = "PACS"

[[route]]
from = ["emr"]
when = 'MSH-9.1 = "ORU"'
to = ["pasc"]
"""

    assert faults(text) == [
        "gateway.toml:2:1: gateway.nmae: unknown key 'nmae' (did you mean 'name'?)",
        "gateway.toml:10:1: source[1].name: duplicate source name 'emr', first at gateway.toml:5:1",
        "gateway.toml:12:1: source[1].prot: unknown key 'prot'",
        "gateway.toml:13:1: source[1].listen: duplicate port: 127.0.0.1:2575 is taken by source 'emr'"
        " at gateway.toml:7:1",
        "gateway.toml:18:1: source[2].driver: unknown driver 'nonin'; none is installed",
        "gateway.toml:20:10: source[2].line.baud: expected a whole number, got the text '9600'",
        "gateway.toml:26:1: destination[0].port: must be at most 65535, got 70000",
        "gateway.toml:31:17: route[0].when: unexpected '=' (compare with ==)",
        "gateway.toml:32:7: route[0].to[0]: there is no destination 'pasc' (did you mean 'pacs'?)",
    ]


def test_a_missing_key_is_told_at_its_table() -> None:
    types = "'mllp', 'dicom', 'device', 'sdc' or 'dicom-worklist'"

    assert faults('[[source]]\nname = "a"\n[[source]]\nname = "b"\ntype = "mllp"\n') == [
        f"gateway.toml:1:1: source[0].type: missing required key 'type': {types}",
        "gateway.toml:3:1: source[1].listen: missing required key 'listen'",
    ]


def test_a_fault_of_syntax_has_its_line_and_column() -> None:
    assert faults('[gateway]\nname = "x\n') == ["gateway.toml:2:10: Illegal character '\\n'"]
    assert faults('[gateway]\nname = """x\n') == ["gateway.toml:3:1: Unterminated string at the end of the file"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name = ward-3a", '1:8: Invalid value (text stands in straight quotes, "like this")'),
        ("a = 1\na = 2\n", "2:6: this key stands twice in its table"),
        ("[gateway]\n[gateway]", "2:9: the table [gateway] stands twice"),
        ("[a.b]\n[a.b]", "2:5: the table [a.b] stands twice"),
        ("x = [", '1:6: Invalid value (text stands in straight quotes, "like this") at the end of the file'),
    ],
)
def test_a_fault_of_syntax_is_told_for_who_writes_the_file(text: str, told: str) -> None:
    assert faults(text) == [f"gateway.toml:{told}"]


def test_a_file_of_windows_in_utf_16_is_told_so() -> None:
    Path("gateway.toml").write_bytes("[gateway]\n".encode("utf-16"))

    assert [str(fault) for fault in load(Path("gateway.toml")).faults] == [
        "gateway.toml:1:1: is UTF-16: save it as UTF-8"
    ]


def test_faults_of_syntax_are_told_of_every_file() -> None:
    write("= 1", "conf.d/10-a.toml")
    write("[x", "conf.d/20-b.toml")

    found = [str(fault) for fault in load(write("[gateway]\nnmae = 1")).faults]

    assert [line.partition(": ")[0] for line in found] == ["conf.d/10-a.toml:1:1", "conf.d/20-b.toml:1:3"]


def test_a_file_that_is_missing_or_no_utf8_is_a_fault() -> None:
    assert [str(fault) for fault in load(Path("nowhere.toml")).faults] == [
        "nowhere.toml:1:1: cannot be read: No such file or directory"
    ]
    Path("gateway.toml").write_bytes(b'[gateway]\nname = "\xe9"\n')
    assert [str(fault) for fault in load(Path("gateway.toml")).faults] == ["gateway.toml:2:9: is not UTF-8"]


def test_stanzas_of_conf_d_are_added_in_the_order_of_names() -> None:
    write(MLLP_IN.format("c", 3), "conf.d/20.toml")
    write("[gateway]\nfacility = 'F'\n" + MLLP_IN.format("b", 2), "conf.d/10.toml")
    write("broken = [", "conf.d/.#10.toml")
    write("broken = [", "conf.d/10.toml.bak")

    loaded = load(write('[gateway]\nname = "g"\n' + MLLP_IN.format("a", 1)))

    config = loaded.required()
    assert [source.name for source in config.sources] == ["a", "b", "c"]
    assert (config.gateway.name, config.gateway.facility) == ("g", "F")
    assert loaded.files == (Path("gateway.toml"), Path("conf.d/10.toml"), Path("conf.d/20.toml"))


def test_a_fault_in_conf_d_is_told_at_its_own_line() -> None:
    write("# beds\n" + MLLP_IN.format("b", "x"), "conf.d/10.toml")
    write(MLLP_IN.format("a", 1), "conf.d/20.toml")

    assert faults(MLLP_IN.format("a", 2)) == [
        'conf.d/10.toml:5:1: source[1].listen: expected "host:port" such as "0.0.0.0:2575",'
        " got the text '127.0.0.1:x'",
        "conf.d/20.toml:2:1: source[2].name: duplicate source name 'a', first at gateway.toml:2:1",
    ]


def test_a_key_written_twice_is_a_fault_that_names_both_places() -> None:
    write("[gateway]\nname = 'b'\nfacility = 'F'", "conf.d/10.toml")
    write("[gateway]\n\nfacility = 'G'", "conf.d/20.toml")

    assert faults("[gateway]\nname = 'a'\nnmae = 1") == [
        "gateway.toml:3:1: gateway.nmae: unknown key 'nmae'",
        "conf.d/10.toml:2:1: gateway.name: 'name' is written twice, first at gateway.toml:2:1",
        "conf.d/20.toml:3:1: gateway.facility: 'facility' is written twice, first at conf.d/10.toml:3:1",
    ]


def test_line_ends_and_byte_order_mark_of_windows_are_read() -> None:
    Path("gateway.toml").write_bytes(b"\xef\xbb\xbf[gateway]\r\nname = 'a'\r\nx = '''\r\n'''\r\n")

    assert [str(fault) for fault in load(Path("gateway.toml")).faults] == [
        "gateway.toml:3:1: gateway.x: unknown key 'x'"
    ]


def test_one_source_and_one_destination_need_no_route() -> None:
    config = load(write(MLLP_IN.format("a", 1) + MLLP_OUT.format("b"))).required()

    (route,) = effective_routes(config)

    assert (route.sources, route.to, route.when) == (("a",), ("b",), None)


def test_more_than_one_of_either_need_a_route() -> None:
    loaded = load(write(MLLP_IN.format("a", 1) + MLLP_IN.format("c", 2) + MLLP_OUT.format("b")))

    assert effective_routes(loaded.required()) == ()
    assert [str(warning) for warning in loaded.warnings] == [
        "gateway.toml:2:1: source[0].name: no route begins at 'a': what it brings is kept and sent nowhere",
        "gateway.toml:6:1: source[1].name: no route begins at 'c': what it brings is kept and sent nowhere",
        "gateway.toml:10:1: destination[0].name: no route leads to 'b': it gets nothing",
    ]


def test_a_polled_worklist_needs_no_route() -> None:
    worklist = '[[source]]\nname = "ris"\ntype = "dicom-worklist"\nhost = "h"\nport = 104\nae_title = "RIS"\n'

    assert load(write(worklist)).warnings == ()


def test_what_is_not_written_is_the_default() -> None:
    config = load(write(MLLP_IN.format("a", 1))).required()

    assert replace(config, sources=()) == Config()


def test_required_raises_every_fault_as_a_line() -> None:
    with pytest.raises(ConfigError) as raised:
        load(write("a = 1\nb = 2")).required()

    assert raised.value.faults == (
        "gateway.toml:1:1: a: unknown key 'a'",
        "gateway.toml:2:1: b: unknown key 'b'",
    )
    assert str(raised.value) == "\n".join(raised.value.faults)


def test_the_file_that_was_named_comes_first() -> None:
    assert find_config(Path("x.toml")) == Path("x.toml")


def test_the_systems_file_comes_before_the_working_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    system = write("", "etc/gateway.toml")
    monkeypatch.setattr("gateway.configfile.loading.SYSTEM_FILE", system)
    assert find_config() == system

    system.unlink()
    assert find_config() == LOCAL_FILE


def test_a_folder_of_the_system_that_is_closed_to_this_user_is_told_as_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "gateway.toml"

    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("gateway.configfile.loading.SYSTEM_FILE", system)
    monkeypatch.setattr("pathlib.Path.exists", refuse)

    assert find_config() == system


@pytest.mark.parametrize("text", ["", "# all of it is commented out\n"])
def test_an_empty_file_is_a_fault(text: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(text)

    assert [str(fault) for fault in load(file).faults] == [f"{file}:1:1: {NOTHING}"]


def test_a_file_without_sources_and_destinations_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('[gateway]\nname = "ward-3a"\n')

    loaded = load(file)

    assert loaded.required().gateway.name == "ward-3a"
    assert [str(warning) for warning in loaded.warnings] == [f"{file}:1:1: {NOTHING}"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(alphabet="[]{}=.,\"'\\\n\t #abs0é", max_size=60) | st.binary(max_size=40))
def test_any_file_is_loaded_or_faulted_and_never_raises(content: str | bytes) -> None:
    path = Path("gateway.toml")
    path.write_bytes(content.encode() if isinstance(content, str) else content)

    loaded = load(path)

    assert (loaded.config is None) == bool(loaded.faults)
    assert all(str(fault).startswith("gateway.toml:") for fault in loaded.faults)


def test_deep_nesting_is_a_fault_and_no_crash() -> None:
    assert len(faults("a = " + "[" * 20_000)) == 1


def test_names_are_restricted() -> None:
    (fault,) = faults(MLLP_IN.format("a/b", 1))

    assert "1 to 64 letters" in fault
    assert isinstance(load(write(MLLP_IN.format("A-1._", 1))).required().sources[0], MllpSource)
