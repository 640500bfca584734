"""From `-c FILE` to the configuration that a command works with."""

import argparse
import tomllib
from pathlib import Path

from gateway.config import Config, GatewaySettings
from gateway.configfile import find_config, load
from gateway.errors import ConfigError


def config_path(arguments: argparse.Namespace) -> Path:
    """Return the file that was named, or the default."""
    return find_config(arguments.config)


def read_config(arguments: argparse.Namespace) -> Config:
    """Return the configuration. Raises ConfigError with every fault."""
    return load(config_path(arguments)).required()


def read_data_dir(arguments: argparse.Namespace) -> Path:
    """Return the data folder, also from a configuration with faults elsewhere: its agent may run on the old one.

    Raises ConfigError with every fault when the folder cannot be made out.
    """
    path = config_path(arguments)
    loaded = load(path)
    if loaded.config is not None:
        return loaded.config.gateway.data_dir
    try:
        with path.open("rb") as file:
            settings = tomllib.load(file).get("gateway", {})
    except (OSError, ValueError):
        settings = None
    folder = settings.get("data_dir", str(GatewaySettings.data_dir)) if isinstance(settings, dict) else None
    if not isinstance(folder, str) or not folder:
        raise ConfigError(*map(str, loaded.faults))
    return Path(folder)
