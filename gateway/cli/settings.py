"""From `-c FILE` to the configuration that a command works with."""

import argparse
from pathlib import Path

from gateway.config import Config
from gateway.configfile import find_config, load


def config_path(arguments: argparse.Namespace) -> Path:
    """Return the file that was named, or the default."""
    return find_config(arguments.config)


def read_config(arguments: argparse.Namespace) -> Config:
    """Return the configuration. Raises ConfigError with every fault."""
    return load(config_path(arguments)).required()
