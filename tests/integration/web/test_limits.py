"""Bad input and too much of it: a clear answer, no traceback, nothing changed, and nothing of it in the log."""

import asyncio
import json

import httpx
import pytest
from structlog.testing import capture_logs

from smtpguard.service.address_desk import AddressDesk
from smtpguard.web import front, server
from smtpguard.web.addresses import MAX_IMPORT_OCTETS
from smtpguard.web.application import OPERATIONS, PREFIX
from smtpguard.web.operation import MAX_BODY_OCTETS
from tests.support.api import Api, problem
from tests.support.eventually import eventually

FLAG = {"address": "anna@customer.example", "reason": "x"}


async def send(api: Api, method: str, path: str, content: bytes, content_type: str | None = "application/json"):
    headers = {"Authorization": f"Bearer {api.token}"} | ({"Content-Type": content_type} if content_type else {})
    return await api.http.request(method, PREFIX + path, content=content, headers=headers)


async def spoken(api: Api, octets: bytes) -> bytes:
    """What is answered to octets of any kind, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.guard.guard.web_endpoints[0].port)
    try:
        writer.write(octets)
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def nothing_changed(api: Api) -> None:
    assert (await api.done("GET", "/addresses"))["items"] == []
    acts = await api.guard.desks.store.audit_log.list(limit=0, after=None)
    assert [each.act.kind.value for each in acts] == ["token-create"]


WRONG = {
    "nothing": b"",
    "no JSON": b"address=anna@customer.example",
    "cut": b'{"address": "a@b.example", "rea',
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 40_000,
    "no UTF-8": b'{"address": "\xff\xfe"}',
    "half a pair": b'{"address": "\\ud800@b.example", "reason": "x", "sent": true}',
    "NaN": b'{"address": NaN}',
    "huge number": b'{"address": 1e999999}',
    "unknown field": b'{"address": "a@b.example", "reason": "x", "sent": true, "entries": [], "admin": true}',
    "numbers for words": b'{"address": 1, "reason": 2, "sent": 3, "entries": 4}',
    "words for truth": b'{"address": "a@b.example", "reason": "x", "sent": "true", "despite_flag": "true"}',
    "lists for words": b'{"address": ["a@b.example"], "reason": ["x"], "entries": {}}',
    "two behind one another": b"{} {}",
    "a byte order mark": b"\xef\xbb\xbf{}",
}


async def test_bodies_of_wrong_shapes(api) -> None:
    """At every operation that takes a body."""
    for operation in OPERATIONS:
        if operation.body is not None:
            path = operation.path.replace("{message_id:str}", "01ABC-1")
            for shape, octets in WRONG.items():
                said = problem(await send(api, operation.method, path, octets))
                assert said == (400, "bad-body"), (operation.path, shape)

    await nothing_changed(api)


WRONG_WORDS = [
    ("reason", ""),
    ("reason", "   "),
    ("reason", "a\nb"),
    ("reason", "x" * 501),
    ("reason", "\u202ereversed"),
    ("on_behalf_of", ""),
    ("on_behalf_of", "a\x1b[2J"),
    ("customer", "a\u00e4"),
    ("customer", "x" * 201),
    ("customer", ""),
    ("address", "x" * 1001),
]


async def test_words_that_cannot_stand_in_a_record(api) -> None:
    for field, value in WRONG_WORDS:
        said = await api.refused("POST", "/addresses/verify", {**FLAG, "customer": "1", field: value})
        assert said == (400, "bad-body"), (field, value)

    await nothing_changed(api)


async def test_body_that_does_not_say_it_is_json(api) -> None:
    for content_type in [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"]:
        said = await send(api, "POST", "/addresses/flag", json.dumps(FLAG).encode(), content_type)
        assert problem(said) == (415, "not-json")

    await nothing_changed(api)


async def test_body_that_says_more_than_that_it_is_json(api) -> None:
    said = await send(api, "POST", "/addresses/flag", json.dumps(FLAG).encode(), "Application/JSON; charset=utf-8")

    assert said.status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("path", "octets"), [("/addresses/flag", MAX_BODY_OCTETS), ("/addresses/import", MAX_IMPORT_OCTETS)]
)
async def test_too_big(api, path, octets, chunked) -> None:
    async def pieces():
        for _ in range(octets // 65_536 + 1):
            yield b" " * 65_536

    content = pieces() if chunked else b" " * (octets + 1)
    try:
        said = await send(api, "POST", path, content)
    except (httpx.ReadError, httpx.WriteError):
        return  # the guard hung up with octets on their way, which it need not read
    assert problem(said) == (413, "too-big")


async def test_too_many_entries(api) -> None:
    entries = {"entries": [{"address": "a@b.example"}] * 10_001}

    assert await api.refused("POST", "/addresses/import", entries) == (400, "bad-body")
    assert await api.refused("POST", "/addresses/import", {"entries": []}) == (400, "bad-body")
    await nothing_changed(api)


NOWHERE = ["/", "/api", "/api/v2/addresses", "/api/v1/x", "/api/v1/addresses/a@b.example", "//", "/%00", "/../x"]


async def test_what_is_not_there(api) -> None:
    for path in NOWHERE:
        assert problem(await api.http.get(path)) == (404, "not-found")


async def test_methods_that_are_not_there(api) -> None:
    for method, path in [("DELETE", "/api/v1/addresses"), ("GET", "/api/v1/addresses/flag"), ("POST", "/metrics")]:
        response = await api.http.request(method, path)
        assert problem(response) == (405, "method-not-allowed")
        assert "GET" in response.headers["allow"] or "POST" in response.headers["allow"]
    assert b" 405 " in await spoken(api, b"BREW /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


async def test_octets_that_are_no_text(api) -> None:
    """In a path, a query, and headers."""
    for request in [
        b"GET /api/v1/quarantine/%ff%00",
        b"GET /api/v1/addresses?standing=%ff",
        b"GET /api/v1/addresses?%ff=%fe&after=%00",
        b"GET /api/v1/addresses?after=\xd9\xa3",  # a digit, but none of ours
    ]:
        head = b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer " + api.token.encode()
        assert (await spoken(api, request + head + b"\r\n\r\n"))[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 404"}, request
    for header in [b"Authorization: Bearer \xff", b"Authorization: \xe2\x82\xac", b"Content-Type: \xff"]:
        said = await spoken(
            api, b"GET /api/v1/addresses HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + header + b"\r\n\r\n"
        )
        assert said.startswith(b"HTTP/1.1 401 "), header


NO_HTTP = {
    "noise": b"\r\n\r\n\x00\x01\x02\r\n\r\n",
    "SMTP": b"EHLO app.example\r\nMAIL FROM:<a@b>\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "big header": b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"x" * server.MAX_HEADER_OCTETS,
    "space before colon": b"GET /livez HTTP/1.1\r\nX : y\r\nHost: a\r\n\r\n",
    "no Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two lengths": b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
}


async def test_what_is_not_http(api) -> None:
    for name, octets in NO_HTTP.items():
        head, _, body = (await spoken(api, octets)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 "), name
        assert b"content-type: application/problem+json" in head.lower()
        assert json.loads(body)["code"] == "bad-request"


async def test_header_that_does_not_come(api, monkeypatch) -> None:
    """Neither at the beginning nor behind an answer."""
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.05)

    assert await spoken(api, b"GET /livez HT") == b""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.guard.guard.web_endpoints[0].port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"live\n")
    writer.write(b"GET /li")
    assert await reader.read() == b""
    writer.close()


async def test_body_that_does_not_come(api, monkeypatch) -> None:
    monkeypatch.setattr(front, "BODY_SECONDS", 0.05)
    head = f"POST /api/v1/addresses/flag HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.token}\r\n"

    said = await spoken(api, f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{".encode())

    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too-slow"' in said
    await nothing_changed(api)


async def test_client_that_goes_away_within_a_body(api) -> None:
    """It is its own fault, and nothing is done."""
    head = f"POST /api/v1/addresses/flag HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {api.token}\r\n"
    with capture_logs() as lines:
        _, writer = await asyncio.open_connection("127.0.0.1", api.guard.guard.web_endpoints[0].port)
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{{".encode())
        await writer.drain()
        writer.close()
        await eventually(lambda: lines != [])

    assert [(line["event"], line["status"]) for line in lines] == [("request-ended", 400)]
    await nothing_changed(api)


async def test_too_many_at_once(api, monkeypatch) -> None:
    monkeypatch.setattr(front, "MAX_REQUESTS", 0)

    response = await api("GET", "/addresses")

    assert problem(response) == (503, "busy")
    assert response.headers["retry-after"] == "1"
    assert (await api.http.get("/readyz")).status_code == 200


async def test_too_many_connections(api, monkeypatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 0)

    with pytest.raises(OSError):  # noqa: PT012
        said = await spoken(api, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        raise OSError(said)


async def test_error_of_the_guard(api, monkeypatch) -> None:
    """A fixed text, and the traceback in the log."""

    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail of the guard")

    monkeypatch.setattr(AddressDesk, "show", fail)
    with capture_logs() as lines:
        response = await api("POST", "/addresses/lookup", {"address": "a@b.example"})

    assert problem(response) == (500, "failed")
    assert "secret" not in response.text
    assert [line["event"] for line in lines] in (["request-failed", "request-ended"], ["request-ended"])


async def test_headers(api) -> None:
    """On every kind of answer."""
    for path in ["/livez", "/metrics", "/nothing", "/api/v1/addresses", "/api/v1/openapi.json"]:
        headers = (await api.http.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in headers
        assert not [name for name in headers if name.startswith("access-control-")]


async def test_origin_and_host_count_for_nothing(api) -> None:
    for name, value in [("Host", "evil.example"), ("Origin", "https://evil.example"), ("X-Forwarded-For", "10.9.9.9")]:
        with capture_logs() as lines:
            response = await api.http.get("/livez", headers={name: value})
        assert response.status_code == 200
        assert [line["peer"] for line in lines] == ["127.0.0.1"]


async def test_log_has_no_path_and_no_address(sqlite_url, smarthost) -> None:
    from tests.support.api import asking

    with capture_logs() as lines:
        async with asking(sqlite_url, smarthost.port) as api:
            await api("GET", "/addresses/anna@customer.example?x=anna@customer.example")
            await api("GET", "/quarantine/anna@customer.example")
            await api("POST", "/addresses/flag", FLAG)
            await spoken(api, b"anna@customer.example /anna@customer.example HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: sum(line["event"] == "request-ended" for line in lines) >= 3)

    requests = [line for line in lines if line["event"] == "request-ended"]
    assert [line["route"] for line in requests[:3]] == [
        "-",
        "/api/v1/quarantine/{message_id}",
        "/api/v1/addresses/flag",
    ]
    assert [line.get("token") for line in requests[:3]] == [None, "crm", "crm"]
    assert "@" not in str(lines)
