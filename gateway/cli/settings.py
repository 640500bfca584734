"""From `-c FILE` to the configuration that a command works with."""

import argparse
import re
import tomllib
from pathlib import Path

from gateway.config import Config, GatewaySettings
from gateway.configfile import find_config, load
from gateway.errors import ConfigError

_DATA_DIR = re.compile(r"""^[ \t]*data_dir[ \t]*=[ \t]*(["'])(.*?)\1""", re.MULTILINE)  # where all is no TOML


def config_path(arguments: argparse.Namespace) -> Path:
    """Return the file that was named, or the default."""
    return find_config(arguments.config)


def read_config(arguments: argparse.Namespace) -> Config:
    """Return the configuration. Raises ConfigError with every fault."""
    return load(config_path(arguments)).required()


def read_data_dir(arguments: argparse.Namespace) -> Path:
    """Return the data folder, also from a file at fault or no TOML at all: its agent may run on the old one.

    Raises ConfigError with every fault when the folder cannot be made out.
    """
    path = config_path(arguments)
    loaded = load(path)
    if loaded.config is not None:
        return loaded.config.gateway.data_dir
    folder = _data_dir_of(path)
    if not isinstance(folder, str) or not folder:
        raise ConfigError(*map(str, loaded.faults))
    return Path(folder)


def _data_dir_of(path: Path) -> object:
    """Return what stands for the data folder, or its default; None when the file cannot be read."""
    default = str(GatewaySettings.data_dir)
    try:
        text = path.read_text("utf-8-sig")
        settings = tomllib.loads(text).get("gateway", {})
    except tomllib.TOMLDecodeError:
        written = _DATA_DIR.search(text)
        return default if written is None else written[2]
    except (OSError, ValueError):
        return None
    return settings.get("data_dir", default) if isinstance(settings, dict) else None
