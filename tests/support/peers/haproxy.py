"""HAProxy before the guard: it tells it with the PROXY protocol who has connected."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from tests.support.eventually import eventually
from tests.support.peers import need
from tests.support.process import answers, free_port, running

SETTINGS = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 10s
    timeout client 1m
    timeout server 1m
listen smtp
    bind 127.0.0.1:{port}
    server guard 127.0.0.1:{guard_port} {send}
"""


@asynccontextmanager
async def haproxy(
    guard_port: int, directory: Path, *, send: Literal["send-proxy", "send-proxy-v2"]
) -> AsyncIterator[int]:
    """Run one; give the port that it listens on."""
    program = need("haproxy", "haproxy")
    port = free_port()
    settings = directory / "haproxy.cfg"
    settings.write_text(SETTINGS.format(port=port, guard_port=guard_port, send=send))
    async with running(program, "-db", "-f", settings, log=directory / "haproxy.log"):
        await eventually(lambda: answers(port))
        yield port
