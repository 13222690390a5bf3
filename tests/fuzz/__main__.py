"""Fuzz one target after the other: ``python -m tests.fuzz [--seconds 60] [TARGET...]``.

atheris learns from coverage where to go on. Each target is fuzzed in a process of its own, beginning with its seeds;
an input that breaks it is kept beside them, and the suite replays it from then on.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

SEEDS = Path(__file__).parent / "seeds"
MAX_OCTETS = 4096


def main() -> int:
    """Parse the command line; return how many targets were broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what reads octets of strangers.")
    parser.add_argument("--seconds", type=int, default=60, help="how long each target (60)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("target", nargs="*", help="all, where none is named")
    arguments, rest = parser.parse_known_args()
    if arguments.one:
        fuzz_here(arguments.one, [*rest, *arguments.target])
    names = arguments.target or sorted(path.name for path in SEEDS.iterdir())
    return sum(fuzz(name, arguments.seconds) != 0 for name in names)


def fuzz(name: str, seconds: int) -> int:
    """Fuzz a target in a process of its own; return how it ended."""
    print(f"== {name}, {seconds} s", flush=True)
    with tempfile.TemporaryDirectory() as corpus:
        options = [f"-max_total_time={seconds}", f"-max_len={MAX_OCTETS}", "-timeout=10", "-print_final_stats=1"]
        directories = [corpus, str(SEEDS / name)]
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, *options]
        command += [f"-artifact_prefix={SEEDS / name}/", *directories]
        return subprocess.run(command, check=False).returncode


def fuzz_here(name: str, options: list[str]) -> None:
    """Hand this process over to the fuzzer."""
    with atheris.instrument_imports(include=["smtpguard"]):
        from tests.fuzz.targets import TARGETS
    with asyncio.Runner() as runner:

        def feed(octets: bytes) -> None:
            work = TARGETS[name](octets)
            if work is not None:
                runner.run(work)

        atheris.Setup(["tests.fuzz", *options], feed)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
