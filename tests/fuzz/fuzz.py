"""Coverage-guided fuzzing: fuzz.py [--only NAME,NAME] [--seconds N]; a table, and exit 1 when anything was found.

Every target runs in a process of its own under atheris (libFuzzer), for so many seconds; what is new in coverage stays
in build/fuzz/NAME, so that the next run begins where this one ended. Drivers begin with the bytes of their transcripts.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

FOLDER = ROOT / "build" / "fuzz"
INPUT_BYTES_MAX = 8192
MEMORY_MB_MAX = 512
INPUT_SECONDS_MAX = 5


def main() -> int:
    """Run the targets asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names, with commas")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    asked, rest = parser.parse_known_args()
    if asked.target:
        _fuzz(asked.target, rest)
    names = [name for name in asked.only.split(",") if name] or _all_names()
    found = [name for name in names if not _run(name, asked.seconds)]
    print(
        f"{len(names) - len(found)} of {len(names)} targets without a finding; findings: {', '.join(found) or 'none'}"
    )
    return 1 if found else 0


def _all_names() -> list[str]:
    from gateway.registry import driver_names
    from tests.fuzz.targets import TARGETS

    return [*TARGETS, *driver_names()]


def _run(name: str, seconds: int) -> bool:
    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    _sow(name, corpus)
    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-rss_limit_mb={MEMORY_MB_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-artifact_prefix={FOLDER}/{name}-",
    ]
    command = [sys.executable, __file__, "--target", name, *limits, str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds * 3 + 120)
    runs = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("Done ")), "")
    print(f"{name:22} {'ok ' if done.returncode == 0 else 'FOUND'} {runs}", flush=True)
    if done.returncode != 0:
        print(done.stderr[-3000:], file=sys.stderr)
    return done.returncode == 0


def _sow(name: str, corpus: Path) -> None:
    """Put what a Device's transcripts hold into a driver's corpus, and a whole call into the association's."""
    if name == "association" and not any(corpus.iterdir()):
        from tests.fuzz.targets import a_call

        (corpus / "call").write_bytes(b"\xff" + a_call())
    for number, file in enumerate(sorted((ROOT / "tests" / "drivers" / name).glob("*.transcript"))):
        from tests.drivers.transcripts import load

        seed = corpus / f"transcript-{number}"
        if not seed.exists():
            seed.write_bytes(b"\x40" + load(file).sent[: INPUT_BYTES_MAX - 1])


def _fuzz(name: str, limits: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["gateway.protocols", "gateway.formats", "drivers"]):
        from tests.fuzz.targets import TARGETS, driver_target

        target = TARGETS.get(name) or driver_target(name)

    def one(data: bytes) -> None:
        target(data)

    atheris.Setup([sys.argv[0], *limits], one)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
