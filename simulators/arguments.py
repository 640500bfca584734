"""What the command lines of the simulators share: addresses, the seed, the journal."""

import argparse
from pathlib import Path


def make_parser(module: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser for `python -m simulators.MODULE` whose help ends with an example."""
    return argparse.ArgumentParser(
        prog=f"python -m simulators.{module}",
        description=description,
        epilog=f"example:\n  python -m simulators.{module} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_listen(parser: argparse.ArgumentParser) -> None:
    """Add `--listen HOST:PORT`; port 0 takes a free one, which the first line of output tells."""
    parser.add_argument(
        "--listen",
        type=address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help="default: a free port of 127.0.0.1",
    )


def add_journal(parser: argparse.ArgumentParser) -> None:
    """Add `--journal FILE` and `--seed N`."""
    parser.add_argument("--journal", type=Path, default=None, metavar="FILE", help="append one JSON line per item here")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything random (default 1)")


def address(text: str) -> tuple[str, int]:
    """Read `host:port`, or a port alone on 127.0.0.1."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"expected host:port, got {text!r}")
    return host or "127.0.0.1", int(port)


def size(text: str) -> int:
    """Read a number of bytes with an optional KB, MB (powers of 1024)."""
    number, factor = text.strip().upper().removesuffix("B"), 1
    if number[-1:] in ("K", "M"):
        number, factor = number[:-1], 1 << (10 if number[-1] == "K" else 20)
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a size such as 512KB, got {text!r}")
    return int(number) * factor
