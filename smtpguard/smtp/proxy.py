"""The header of the PROXY protocol, by which a proxy says who the application is. aiosmtpd reads it."""

import asyncio

from aiosmtpd.proxy_protocol import V2_CMD, get_proxy

from smtpguard.domain.application import ip_address_of
from smtpguard.smtp.input import Input


class ProxyHeaderError(Exception):
    """There is no such header, or it is broken."""


async def said_by_proxy(input_: Input) -> str | None:
    """Return the address of the application; None where the proxy speaks for itself (LOCAL, UNKNOWN).

    Raises ProxyHeaderError.
    """
    try:
        header = await get_proxy(input_)
    except (OSError, asyncio.IncompleteReadError) as error:
        raise ProxyHeaderError from error
    if not header.valid:
        raise ProxyHeaderError
    address = str(header.src_addr)
    return None if header.command == V2_CMD.LOCAL or ip_address_of(address) is None else address
