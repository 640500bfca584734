"""Asking the running agent over its control socket.

call(data_dir, "status")                                      GET
call(data_dir, "retry", {"ids": [17]})                        POST, with the name of who asks
lines(data_dir, "capture", {"source": "bed-12"})              POST, answered line by line
"""

import getpass
import http.client
import json
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

from gateway.errors import ConfigError, GatewayError, StoreError

SOCKET_NAME = "control.sock"
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
ANSWER_BYTES_MAX = 64 << 20


class AgentNotRunning(GatewayError):
    """No agent listens in the data folder."""


def call(data_dir: Path, method_path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask and return the answer's document; without a body GET, with one POST.

    Raises AgentNotRunning, StoreError when the agent refuses the act, ConfigError when a reload finds faults, and
    GatewayError for anything else that went wrong.
    """
    connection = _Connection(data_dir)
    asked = None if body is None else json.dumps({"who": who(), **body})
    try:
        connection.request("GET" if asked is None else "POST", f"/{method_path.lstrip('/')}", asked)
        answer = connection.getresponse()
        raw = answer.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        raise GatewayError(f"the agent in {data_dir} did not answer: {error or type(error).__name__}") from error
    finally:
        connection.close()
    return _document(answer.status, raw)


def lines(data_dir: Path, path: str, body: dict[str, Any]) -> Generator[bytes, None, None]:
    """Ask for an answer that comes line by line until we have enough of it; close the iterator to hang up.

    Raises as `call`, and GatewayError when the agent ends it or says nothing for ANSWER_TIMEOUT_S.
    """
    connection = _Connection(data_dir)
    try:
        connection.request("POST", f"/{path}", json.dumps({"who": who(), **body}))
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            _document(answer.status, answer.read(ANSWER_BYTES_MAX))
        while line := answer.readline():
            yield line
    except (OSError, http.client.HTTPException) as error:
        raise GatewayError(f"the agent in {data_dir} hung up: {error or type(error).__name__}") from error
    finally:
        connection.close()


def who() -> str:
    """Return the login name of who runs this command, through sudo as well."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid-{os.getuid()}"
    behind = os.environ.get("SUDO_USER", "")
    return f"{name} (sudo {behind})" if behind.isprintable() and 0 < len(behind) <= 64 else name


class _Connection(http.client.HTTPConnection):
    """HTTP over the unix socket in a data folder."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_TIMEOUT_S)
        self._data_dir = data_dir

    def connect(self) -> None:
        """Connect. Raises AgentNotRunning, GatewayError when this user may not."""
        wire = socket.socket(socket.AF_UNIX)
        try:
            wire.settimeout(CONNECT_TIMEOUT_S)
            _connect(wire, self._data_dir)
            wire.settimeout(ANSWER_TIMEOUT_S)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            wire.close()
            raise AgentNotRunning(f"no agent runs in {self._data_dir}") from error
        except PermissionError as error:
            wire.close()
            raise GatewayError(
                f"{self._data_dir}: permission denied: run this as root or as the agent's user"
            ) from error
        except OSError:
            wire.close()
            raise
        self.sock = wire


def _connect(wire: socket.socket, data_dir: Path) -> None:
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        wire.connect(f"/proc/self/fd/{folder}/{SOCKET_NAME}")  # sun_path holds 108 bytes, data folders may be deeper
    finally:
        os.close(folder)


def _document(status: int, raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise GatewayError(f"the agent answered {status} without a document")
    if status == http.client.OK:
        return document
    text = str(document.get("error", f"the agent answered {status}"))
    if status == http.client.UNPROCESSABLE_ENTITY:
        raise ConfigError(*map(str, document.get("faults", [text])))
    if status == http.client.CONFLICT:
        raise StoreError(text)
    raise GatewayError(text)
