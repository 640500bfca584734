"""The command line: `gateway COMMAND`.

Parsers are cheap, rooms are not: the module of a command is imported only when that command is asked for, so that
`gateway status` answers at once on a small box. Exit status: 0 done; 1 what was asked failed, said in one line;
2 wrong usage; 78 the configuration is at fault (sysexits.h, EX_CONFIG).
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from gateway.errors import ConfigError, GatewayError

FAILED = 1
CONFIGURATION_AT_FAULT = 78
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class _Command:
    """Where a command lives: `module.function(arguments) -> int`, its arguments added by `module.adder(parser)`."""

    module: str
    function: str
    summary: str
    example: str
    adder: str | None = None


_COMMANDS = {
    "run": _Command("run", "run", "the agent in the foreground", "gateway run -c /etc/gateway/gateway.toml"),
    "check": _Command(
        "check",
        "check",
        "report every fault of the configuration",
        "gateway check --connect",
        "add_arguments",
    ),
    "status": _Command("status", "status", "how the running agent is", "gateway status --json", "add_arguments"),
    "messages": _Command(
        "messages",
        "messages",
        "what was received, newest first",
        "gateway messages --source emr --since 2h --search 12345",
        "add_messages_arguments",
    ),
    "message": _Command(
        "messages",
        "message",
        "one message with its deliveries and attempts",
        "gateway message 17 --raw > message.hl7",
        "add_message_arguments",
    ),
    "deliveries": _Command(
        "messages",
        "deliveries",
        "what is owed and what was delivered, newest first",
        "gateway deliveries --destination pacs --state parked",
        "add_deliveries_arguments",
    ),
    "worklist": _Command(
        "worklist",
        "worklist",
        "what is scheduled, what a modality sees of it, and why not more",
        "gateway worklist --as CT1 --query Modality=CT PatientName=DOE*",
        "add_arguments",
    ),
    "studies": _Command(
        "studies",
        "studies",
        "what is held of each study, what is owed, what is complete",
        "gateway studies --disagreeing",
        "add_studies_arguments",
    ),
    "steps": _Command(
        "studies",
        "steps",
        "procedure steps that modalities report (MPPS), and requests for storage commitment",
        "gateway steps --commitments",
        "add_steps_arguments",
    ),
    "retry": _Command(
        "acts",
        "retry",
        "send parked deliveries again now",
        "gateway retry --all --destination pacs",
        "add_retry_arguments",
    ),
    "discard": _Command(
        "acts",
        "discard",
        "give deliveries up for good",
        'gateway discard 17 18 --why "sent by hand"',
        "add_discard_arguments",
    ),
    "resend": _Command(
        "acts",
        "resend",
        "owe a message once more to a destination",
        "gateway resend 17 --to pacs",
        "add_resend_arguments",
    ),
    "acknowledge": _Command(
        "acts",
        "acknowledge",
        "end an alarm that a person has seen",
        "gateway acknowledge clock-stepped",
        "add_acknowledge_arguments",
    ),
    "reload": _Command("acts", "reload", "take a changed configuration over", "gateway reload", "add_reload_arguments"),
    "drivers": _Command(
        "drivers",
        "drivers",
        "the installed drivers, or one of them with its settings",
        "gateway drivers nonin",
        "add_arguments",
    ),
    "probe": _Command(
        "probe",
        "run",
        "find out which device stands at a port, and print the stanza for it",
        "gateway probe /dev/ttyUSB0",
        "add_arguments",
    ),
    "capture": _Command(
        "capture",
        "run",
        "record a device's raw bytes with times and directions, or watch them",
        "gateway capture bed-12-monitor -o bed-12.rec --for 60",
        "add_arguments",
    ),
    "replay": _Command(
        "replay",
        "replay",
        "run a recording through a driver and print what it reads",
        "gateway replay bed-12.rec --driver nonin --option format=7",
        "add_arguments",
    ),
    "send": _Command(
        "forward",
        "send",
        "DICOM files to a destination, at once",
        "gateway send study/ --to pacs",
        "add_send_arguments",
    ),
    "echo": _Command(
        "forward",
        "echo",
        "ask a destination or a DICOM peer whether it is there",
        "gateway echo pacs",
        "add_echo_arguments",
    ),
    "backup": _Command(
        "backup",
        "backup",
        "a consistent copy of store and objects, while running",
        "gateway backup /mnt/usb/gateway.tar.gz",
        "add_backup_arguments",
    ),
    "verify": _Command(
        "backup",
        "verify",
        "check store and objects against each other",
        "gateway verify",
        "add_verify_arguments",
    ),
    "demo": _Command(
        "demo", "run", "the whole house on loopback, with a live view", "gateway demo --for 20 --json", "add_arguments"
    ),
    "version": _Command(
        "version", "show", "versions of the gateway and its libraries", "gateway version", "add_arguments"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter still gets the line
    arguments = _parser(words).parse_args(words)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except ConfigError as error:
        print(*error.faults, sep="\n", file=sys.stderr)
        return CONFIGURATION_AT_FAULT
    except GatewayError as error:
        return _failed(str(error))
    except BrokenPipeError:  # `gateway messages | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _failed(_told(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the border of main: a bug is one line, and no text that may hold data
        place = traceback.extract_tb(error.__traceback__)[-1]
        return _failed(f"internal error: {type(error).__name__} at {Path(place.filename).name}:{place.lineno}")
    return status


def _told(error: OSError) -> str:
    """Return what the system refused us, and for a folder that is not ours what to do."""
    place = f"{error.filename}: " if error.filename is not None else ""
    if isinstance(error, PermissionError):
        return f"{place}permission denied: run this as root or as the agent's user"
    return f"{place}{error.strerror or type(error).__name__}"


def _failed(text: str) -> int:
    print(f"gateway: {' '.join(text.split())}", file=sys.stderr)
    return FAILED


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway",
        description="Edge gateway for medical devices and imaging.",
        epilog="example:\n  gateway check && gateway run\n\n`gateway COMMAND --help` tells more of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_config(parser, None)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in _COMMANDS.items():
        one = commands.add_parser(
            name,
            help=command.summary,
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_config(one, argparse.SUPPRESS)
        if name in words:
            _complete(one, command)
    return parser


def _add_config(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        default=default,
        help="the configuration (default: /etc/gateway/gateway.toml, else ./gateway.toml)",
    )


def _complete(parser: argparse.ArgumentParser, command: _Command) -> None:
    """Import the command's module; it adds what it takes."""
    module = import_module(f"gateway.cli.{command.module}")
    if command.adder is not None:
        add: Callable[[argparse.ArgumentParser], None] = getattr(module, command.adder)
        add(parser)
    parser.set_defaults(run=getattr(module, command.function), misused=parser.error)


if __name__ == "__main__":
    sys.exit(main())
