"""`gateway version`."""

import argparse

from gateway.cli.output import add_json, print_json
from gateway.console.build import versions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_json(parser)


def show(arguments: argparse.Namespace) -> int:
    """Print the versions of the product, Python, SQLite and the libraries."""
    found = versions()
    if arguments.json:
        print_json(found)
        return 0
    width = max(map(len, found))
    for name, number in found.items():
        print(f"{name.ljust(width)}  {number}")
    return 0
