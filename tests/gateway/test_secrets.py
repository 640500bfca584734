from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.secrets import resolve_secret
from gateway.typed import Secret


def test_a_credential_is_read_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broker").write_text("wörd \n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert resolve_secret(Secret(credential="broker")) == "wörd "


def test_an_environment_variable_and_a_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "word").write_text("one\r\n")
    monkeypatch.setenv("BROKER_WORD", "two")

    assert resolve_secret(Secret(file=tmp_path / "word")) == "one"
    assert resolve_secret(Secret(env="BROKER_WORD")) == "two"


@pytest.mark.parametrize("name", ["gone", "../broker", "", ".."])
def test_a_credential_that_is_not_there_is_a_fault(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    with pytest.raises(ConfigError):
        resolve_secret(Secret(credential=name))


def test_what_is_not_set_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("BROKER_WORD", raising=False)
    (tmp_path / "bad").write_bytes(b"\xff")
    unset = [
        Secret(credential="broker"),
        Secret(env="BROKER_WORD"),
        Secret(file=tmp_path / "gone"),
        Secret(file=tmp_path / "bad"),
    ]

    for secret in unset:
        with pytest.raises(ConfigError):
            resolve_secret(secret)


def test_a_secret_named_in_no_way_or_two_is_a_fault() -> None:
    for secret in (Secret(), Secret(env="A", credential="a")):
        with pytest.raises(ConfigError):
            resolve_secret(secret)
