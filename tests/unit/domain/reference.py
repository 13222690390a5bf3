"""Second readers of mailboxes and headers, written without regular expressions, to judge the real ones by.

That of mailboxes knows ASCII and the letter é, which is enough to meet every rule of the grammar.
"""

import string
from collections.abc import Iterator

ATEXT = set(string.ascii_letters + string.digits + "!#$%&'*+-/=?^_`{|}~é")
PRINTABLE = {chr(number) for number in range(32, 127)}
QTEXT = (PRINTABLE - set('"\\')) | {"é"}
LET_DIG = set(string.ascii_letters + string.digits)


def is_mailbox(text: str) -> bool:
    """RFC 5321 4.1.2 with RFC 6531 3.3; an octet of an IPv4 address has no leading zero (it might be octal)."""
    if text.isascii() and text.lower() == "postmaster":
        return True
    end = _end_of_quoted_string(text) if text.startswith('"') else text.find("@")
    local_part, domain = text[: max(end, 0)], text[end + 1 :]
    return (
        text[end : end + 1] == "@"
        and (local_part.startswith('"') or _is_dot_string(local_part))
        and (_is_literal(domain) if domain.startswith("[") else _is_domain(domain))
        and len(local_part.encode()) <= 64
        and len(text.encode()) <= 254
    )


def unquoted(local_part: str) -> str:
    """What a local part stands for: without the quotes, and the backslashes that are no content."""
    if not local_part.startswith('"'):
        return local_part
    content, characters = "", iter(local_part[1:-1])
    for character in characters:
        content += next(characters) if character == "\\" else character
    return content


def _end_of_quoted_string(text: str) -> int:
    position = 1
    while position < len(text) and text[position] != '"':
        if text[position] == "\\":
            position += 1
            allowed = PRINTABLE
        else:
            allowed = QTEXT
        if text[position : position + 1] not in allowed:
            return -1
        position += 1
    return position + 1 if position < len(text) else -1


def _is_dot_string(text: str) -> bool:
    return all(atom and set(atom) <= ATEXT for atom in text.split("."))


def _is_domain(text: str) -> bool:
    return all(map(_is_label, text.split(".")))


def _is_label(label: str) -> bool:
    if not label or label[0] == "-" or label[-1] == "-" or not set(label) <= LET_DIG | {"-", "é"}:
        return False
    if "é" not in label:
        return len(label) <= 63
    return label[2:4] != "--" and len(label.lower().encode("punycode")) <= 59


def _is_literal(text: str) -> bool:
    inside = text[1:-1]
    if not text.endswith("]") or len(text) < 2:
        return False
    return _is_ipv6(inside[5:]) if inside[:5].lower() == "ipv6:" else _is_ipv4(inside)


def _is_ipv4(text: str) -> bool:
    octets = text.split(".")
    return len(octets) == 4 and all(octet in map(str, range(256)) for octet in octets)


def _is_ipv6(text: str) -> bool:
    head, compressed, tail = text.partition("::")
    groups = [group for part in (head, tail) if part for group in part.split(":")]
    size = len(groups)
    if groups and _is_ipv4(groups[-1]) and text.endswith(groups[-1]):
        groups.pop()
        size += 1
    right = all(0 < len(group) <= 4 and set(group) <= set(string.hexdigits) for group in groups)
    return right and (size <= 7 if compressed else size == 8)


def fields_line_by_line(octets: bytes) -> Iterator[tuple[str, int, int]]:
    """Read a header a second time: name, start and end of each field."""
    *lines, _ = octets.split(b"\r\n")
    name, start, position = "", 0, 0
    for line in lines:
        is_clean = not set(line) & set(b"\r\n")
        end = position + len(line) + 2
        if not (name and is_clean and line[:1] in {b" ", b"\t"}):
            if name:
                yield name, start, position
            name, start = _field_name(line) if is_clean else "", position
            if not name:
                return
        position = end
    if name:
        yield name, start, position


def _field_name(line: bytes) -> str:
    """Return what stands before the colon in lower case, "" where no field begins."""
    before, colon, _ = line.partition(b":")
    name = before.rstrip(b" \t")
    is_name = colon and 0 < len(name) <= 200 and all(33 <= octet <= 126 for octet in name)
    return name.decode("ascii").lower() if is_name else ""
