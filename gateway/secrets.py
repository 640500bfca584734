"""Secrets: from their names in the configuration to their values, at the moment of use.

A systemd credential is a file in `$CREDENTIALS_DIRECTORY` (systemd.exec(5), "Credentials"). Values are never kept in
the configuration and never appear in an error's text.
"""

import os
from pathlib import Path

from gateway.errors import ConfigError
from gateway.typed import Secret

SECRET_BYTES_MAX = 1 << 20  # what systemd allows for all credentials of a unit


def resolve_secret(secret: Secret) -> str:
    """Return the secret's value, without a line end at its end.

    Raises ConfigError when it is named in no way or in more than one, or when it is not there.
    """
    ways = [way for way in (secret.credential, secret.env, secret.file) if way is not None]
    if len(ways) != 1:
        raise ConfigError("a secret is named by exactly one of credential, env, file")
    if secret.env is not None:
        return _from_environment(secret.env)
    if secret.file is not None:
        return _from_file(secret.file, f"file {secret.file}")
    return _from_file(_credential_path(secret.credential or ""), f"credential {secret.credential!r}")


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ConfigError(f"environment variable {name} is not set")
    return value


def _credential_path(name: str) -> Path:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        raise ConfigError(f"credential {name!r}: not started by systemd with credentials (CREDENTIALS_DIRECTORY)")
    if not name or "/" in name or name in (".", ".."):
        raise ConfigError(f"credential {name!r} is no file name")
    return Path(folder) / name


def _from_file(path: Path, called: str) -> str:
    try:
        with path.open("rb") as stream:
            raw = stream.read(SECRET_BYTES_MAX + 1)
        if len(raw) > SECRET_BYTES_MAX:
            raise ConfigError(f"{called}: more than {SECRET_BYTES_MAX} bytes")
        return raw.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{called}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{called}: not UTF-8") from error
