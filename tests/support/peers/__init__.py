"""Programs that a newcomer's machine may lack, as real peers of the guard: clients, mail servers, a proxy.

Each runs on free ports of 127.0.0.1, out of a directory of its own, and is ended by its own process id.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNPACKED = Path(__file__).parents[3] / ".venv" / "peers"
"""Where .ci/run unpacks mail servers that cannot be installed beside Postfix: a tree like that under /."""
SBIN = "/usr/sbin"


def need(program: str, package: str) -> str:
    """Find a program, or skip the test with the name of the package that has it."""
    found = shutil.which(program) or shutil.which(program, path=SBIN)
    if found is None:
        pytest.skip(f"wants the package {package}")
    return found


def need_file(pattern: str, package: str) -> Path:
    """Find a file of a package, by a pattern under /, or skip the test with the name of the package."""
    found = next(Path("/").glob(pattern), None)
    if found is None:
        pytest.skip(f"wants the package {package}")
    return found


def need_unpacked(program: str, package: str) -> Path:
    """Find a program of a package that is unpacked, not installed, or skip the test."""
    found = UNPACKED / program
    if not found.exists():
        pytest.skip(f"wants the package {package} unpacked in {UNPACKED.parent.name}/{UNPACKED.name}: see .ci/run")
    return found


def need_root(program: str) -> None:
    """Skip the test where nobody may start such a server."""
    if os.geteuid() != 0:
        pytest.skip(f"{program} wants to be started by root")


def need_mounts() -> str:
    """Find the program that gives a process mounts of its own, or skip the test where that is not allowed."""
    unshare = need("unshare", "util-linux")
    if subprocess.run([unshare, "--mount", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("wants the right to mount (in a container: CAP_SYS_ADMIN)")
    return unshare
