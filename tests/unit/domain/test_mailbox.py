"""The only address parser: what it takes, what it refuses, and which addresses it holds for the same."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from smtpguard.domain.mailbox import (
    Mailbox,
    _parse_by_the_grammar,
    ascii_lower,
    parse_domain,
    parse_mailbox,
    split_path,
)
from smtpguard.errors import MailboxSyntaxError
from tests.unit.domain.reference import is_mailbox, unquoted


@pytest.mark.parametrize(
    ("text", "lookup_key"),
    [
        ("john@x.example", "john@x.example"),
        ("John.Doe@X.Example", "john.doe@x.example"),
        ("!#$%&'*+-/=?^_`{|}~@x", "!#$%&'*+-/=?^_`{|}~@x"),
        ("a@b", "a@b"),
        ("1@2.3", "1@2.3"),
        ("a@b-c.d--e.f", "a@b-c.d--e.f"),
        ("user+tag@x", "user+tag@x"),
        ("user%other.example@x", "user%other.example@x"),
        ("other.example!user@x", "other.example!user@x"),
        ("-a-@x", "-a-@x"),
        ('""@x', '""@x'),
        ('"john"@x', "john@x"),
        (r'"jo\hn"@x', "john@x"),
        (r'"\j\o\h\n"@x', "john@x"),
        ('"John"@x', "john@x"),
        ('"john.doe"@x', "john.doe@x"),
        ('"john doe"@x', '"john doe"@x'),
        (r'"john\ doe"@x', '"john doe"@x'),
        (r'"a\"b"@x', r'"a\"b"@x'),
        (r'"a\\"@x', r'"a\\"@x'),
        ('".john"@x', '".john"@x'),
        ('"john..doe"@x', '"john..doe"@x'),
        ('"a@b.example"@x', '"a@b.example"@x'),
        ('"a>b"@x', '"a>b"@x'),
        (r'"a\>b"@x', '"a>b"@x'),
        ('"<a> (b), c:d;"@x', '"<a> (b), c:d;"@x'),
        ("josé@x", "josé@x"),
        ("José@x", "josé@x"),
        ("JosÉ@x", "josÉ@x"),
        ('"josé"@x', "josé@x"),
        ('"josé m"@x', '"josé m"@x'),
        ("用户@x", "用户@x"),
        ("u@bücher.example", "u@xn--bcher-kva.example"),
        ("u@Bücher.EXAMPLE", "u@xn--bcher-kva.example"),
        ("u@xn--bcher-kva.example", "u@xn--bcher-kva.example"),
        ("u@XN--Bcher-KVA.example", "u@xn--bcher-kva.example"),
        ("u@straße.example", "u@xn--strae-oqa.example"),
        ("u@例え.example", "u@xn--r8jz45g.example"),
        ("u@[192.0.2.1]", "u@[192.0.2.1]"),
        ("u@[IPv6:2001:DB8::1]", "u@[ipv6:2001:0db8:0000:0000:0000:0000:0000:0001]"),
        ("u@[ipv6:2001:db8:0:0:0:0:0:1]", "u@[ipv6:2001:0db8:0000:0000:0000:0000:0000:0001]"),
        ("u@[IPv6:::]", "u@[ipv6:0000:0000:0000:0000:0000:0000:0000:0000]"),
        ("u@[IPv6:::ffff:192.0.2.1]", "u@[ipv6:0000:0000:0000:0000:0000:ffff:c000:0201]"),
        ("=?utf-8?q?u=40elsewhere.example?=@x", "=?utf-8?q?u=40elsewhere.example?=@x"),
        ("postmaster@x", "postmaster@x"),
    ],
)
def test_address_of_the_grammar(text, lookup_key) -> None:
    """RFC 5321 4.1.2 and RFC 6531 3.3: it is taken, its text is kept, and its key is the one for all its spellings."""
    mailbox = parse_mailbox(text)

    assert (text, lookup_key) == (mailbox.text, mailbox.lookup_key)
    assert lookup_key.rpartition("@")[2] == mailbox.domain
    assert text == str(mailbox)
    assert is_mailbox(text) or not text.isascii()


@pytest.mark.parametrize("text", ["Postmaster", "postmaster", "POSTMASTER"])
def test_postmaster_needs_no_domain(text) -> None:
    """RFC 5321 4.5.1."""
    mailbox = parse_mailbox(text)

    assert (text, "postmaster", "") == (mailbox.text, mailbox.lookup_key, mailbox.domain)
    assert not mailbox.holds_route


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "john",
        "john@",
        "@x",
        "john x",
        "john:x",
        'john"x',
        '"john"x',
        "a@b@c",
        "a@b@c@d",
        ".john@x",
        "john.@x",
        "john..doe@x",
        "john doe@x",
        "john(comment)@x",
        "john,doe@x",
        "john;@x",
        "john:doe@x",
        "john\\@x",
        r"jo\hn@x",
        "john<@x",
        "john>@x",
        "<john@x>",
        "john[@x",
        '"john@x',
        'john"@x',
        'jo"hn"@x',
        '"jo"hn@x',
        '"jo""hn"@x',
        '"john"x@x',
        '"john".doe@x',
        '"john" @x',
        '"@x',
        '"\\"@x',
        '"a\\é"@x',
        '"postmaster"',
        "postmaster@",
        "Postmaſter",
        "u@x.",
        "u@.x",
        "u@x..y",
        "u@-x",
        "u@x-",
        "u@x_y",
        "u@x y",
        "u@x%y",
        "u@(comment)x",
        "u@x,y",
        'u@"x"',
        "u@x>",
        "u@x> NOTIFY=NEVER",
        r"u@x\>",
        "u@x/y",
        "u@x:25",
        "u@xn--",
        "u@[192.0.2.1",
        "u@192.0.2.1]",
        "u@[]",
        "u@[",
        "u@[192.0.2]",
        "u@[192.0.2.256]",
        "u@[192.0.2.01]",
        "u@[0x7f.0.0.1]",
        "u@[2130706433]",
        "u@[ 192.0.2.1]",
        "u@[192.0.2.1]x",
        "u@[192.0.2.1].x",
        "u@[192.0.2.1/32]",
        "u@[１92.0.2.1]",
        "u@[::1]",
        "u@[2001:db8::1]",
        "u@[IPv6:]",
        "u@[IPv6: ::1]",
        "u@[IPv6:::1::]",
        "u@[IPv6:1:2:3:4:5:6:7]",
        "u@[IPv6:1:2:3:4:5:6:7:8:9]",
        "u@[IPv6:12345::]",
        "u@[IPv6:::1%eth0]",
        "u@[IPv6:::1/64]",
        "u@[IPv6:192.0.2.1]",
        "u@[IPv6:::192.0.2.256]",
        "u@[İPv6:::1]",
        "u@[IPv4:192.0.2.1]",
        "u@[x400:abc]",
        "u@[x.example]",
    ],
    ids=ascii,
)
def test_address_outside_the_grammar(text) -> None:
    with pytest.raises(MailboxSyntaxError):
        parse_mailbox(text)

    assert not is_mailbox(text)


@pytest.mark.parametrize(
    "text",
    [
        "u@=?utf-8?q?evil.example?=",
        '"=?utf-8?q?u?="=?x@x',
        "u(comment)@x",
        "u@x(comment)",
        " u @ x ",
        " u@x",
        "u@x ",
        "u @x",
        "u@ x",
        "u@x.example ,v@y",
        "@a,@b:u@x",
        "@a:u@x",
        "U <u@x>",
        "u@x, v@y",
        "group:u@x;",
        "a\0b@x",
        "a\rb@x",
        "a\nb@x",
        "a\r\nb@x",
        "a\tb@x",
        "a\x0bb@x",
        "a\x7fb@x",
        "a\x85b@x",
        "a\u2028b@x",
        "a\u2029b@x",
        "a\u00a0b@x",
        "a\u3000b@x",
        '"a\0b"@x',
        '"a\rb"@x',
        '"a\\\rb"@x',
        '"a\tb"@x',
        '"a\r\n b"@x',
        '"a\u2028b"@x',
        "u@x\0",
        "u@x\r",
        "u@x\n",
        "u@x\r\nRCPT TO:<v@y>",
        "u@x\u2028y",
    ],
    ids=ascii,
)
def test_leniency_of_common_parsers_is_refused(text) -> None:
    """Encoded words, comments, white space, source routes, lists, names and line ends: aiosmtpd takes most of them."""
    with pytest.raises(MailboxSyntaxError):
        parse_mailbox(text)


@pytest.mark.parametrize(
    "character",
    ["\u200b", "\u200e", "\u202e", "\ufeff", "\u00ad", "\u2060", "\ue000", "\udc80", "\U000e0041", "\u0378", "\x9f"],
    ids=ascii,
)
def test_character_that_an_operator_could_not_see(character) -> None:
    for text in (f"u{character}@x", f'"u{character}"@x', f"u@x{character}", f"u@é{character}.example"):
        with pytest.raises(MailboxSyntaxError):
            parse_mailbox(text)
    with pytest.raises(MailboxSyntaxError):
        parse_domain(f"x{character}")


@pytest.mark.parametrize(
    "domain",
    [
        "\u212a.example",
        "İ.example",
        "ſ.example",
        "ａ.example",
        "a\u3002example",
        "a\uff0eexample",
        "a\uff61example",
        "É.example",
        "BÜCHER.example",
        "e\u0301.example",
        "é_x.example",
        "-é.example",
        "é-.example",
        "ab--é.example",
        "xn--é.example",
        "é@y.example",
        "é .example",
        "é>.example",
        "é\\.example",
        "1א.example",
        "a·b.example",
        "☃.example",
        "💩.example",
        "\u0301é.example",
        "é" * 60 + ".example",
    ],
    ids=ascii,
)
def test_domain_outside_idna_2008(domain) -> None:
    """Nothing is mapped: a letter that some software would take for another one makes no domain."""
    with pytest.raises(MailboxSyntaxError):
        parse_mailbox(f"u@{domain}")
    with pytest.raises(MailboxSyntaxError):
        parse_domain(domain)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u212a@x", "k@x"),
        ("ſ@x", "s@x"),
        ("İ@x", "i@x"),
        ("ı@x", "i@x"),
        ("ａ@x", "a@x"),
        ("É@x", "é@x"),
        ("e\u0301@x", "é@x"),
        ("ß@x", "ss@x"),
        ("а@x", "a@x"),
        ("user％x@y", "user%x@y"),
        ("u＠v@x", '"u@v"@x'),
        ("john.doe@x", "johndoe@x"),
        ("john+tag@x", "john@x"),
        ('"john doe"@x', "johndoe@x"),
        ('"john "@x', "john@x"),
        (r'"a\"b"@x', "ab@x"),
        (r'"a\\b"@x', '"ab"@x'),
        ('""@x', "postmaster"),
        ("postmaster@x", "postmaster"),
        ('"u@x"@y', "u@x"),
        ("u@straße.example", "u@strasse.example"),
        ("u@xn--strasse-", "u@strasse"),
        ("u@xn--a.example", "u@a.example"),
        ("u@192.0.2.1", "u@[192.0.2.1]"),
        ("u@[192.0.2.1]", "u@[IPv6:::ffff:192.0.2.1]"),
        ("u@x", "u@x.example"),
    ],
    ids=ascii,
)
def test_look_alike_is_another_mailbox(one, other) -> None:
    """Only ASCII case, needless quoting and the form of an IDNA label make no difference."""
    try:
        key = parse_mailbox(one).lookup_key
    except MailboxSyntaxError:
        return  # no mailbox at all

    assert parse_mailbox(other).lookup_key != key


def test_mailboxes_are_equal_by_their_lookup_key() -> None:
    assert parse_mailbox('"John"@Bücher.example') == parse_mailbox("john@xn--bcher-kva.example")
    assert len({parse_mailbox("a@x"), parse_mailbox("A@X"), parse_mailbox("b@x")}) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user%elsewhere.example@here", True),
        ("elsewhere.example!user@here", True),
        ('"user@elsewhere.example"@here', True),
        (r'"user\@elsewhere.example"@here', True),
        (r'"\user\%elsewhere"@here', True),
        ('"@elsewhere.example:user"@here', True),
        ("a%b%c@here", True),
        ("user+tag@here", False),
        ("user=elsewhere.example@here", False),
        ("=?utf-8?q?user=40elsewhere?=@here", True),
        ('"user elsewhere"@here', False),
        ("user@[192.0.2.1]", False),
    ],
)
def test_local_part_that_holds_a_route(text, expected) -> None:
    """Postfix by default sends ``user%elsewhere@here`` on to ``user@elsewhere`` where ``here`` is its own domain."""
    assert parse_mailbox(text).holds_route is expected


AT_64 = "a" * 64
E_64 = "é" * 32
DOMAIN_189 = ".".join(["b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    ("fits", "too_long"),
    [
        (f"{AT_64}@x", f"{AT_64}a@x"),
        (f"{E_64}@x", f"{E_64}a@x"),
        (f'"{"a" * 62}"@x', f'"{"a" * 63}"@x'),
        (f'"{"é" * 31}"@x', f'"{"é" * 31}a"@x'),
        (f"u@{'a' * 63}", f"u@{'a' * 64}"),
        (f"u@xn--{'a' * 59}", f"u@xn--{'a' * 60}"),
        (f"u@é{'a' * 54}.example", f"u@é{'a' * 56}.example"),
        (f"{AT_64}@{DOMAIN_189}", f"{AT_64}@{DOMAIN_189}d"),
        (f"{E_64}@{DOMAIN_189}", f"{E_64}@{DOMAIN_189}d"),
        (f'"{"a" * 62}"@{DOMAIN_189}', f'"{"a" * 62}"@{DOMAIN_189}d'),
    ],
)
def test_limits_are_octets(fits, too_long) -> None:
    """RFC 5321 4.5.3.1.1 to 4.5.3.1.3, counted in the octets of UTF-8."""
    assert fits == parse_mailbox(fits).text
    with pytest.raises(MailboxSyntaxError):
        parse_mailbox(too_long)


def test_a_path_is_256_octets_with_its_brackets() -> None:
    longest = parse_mailbox(f"{AT_64}@{DOMAIN_189}")

    assert len(f"<{longest}>") == 256


def test_address_that_is_too_long_as_a_labels() -> None:
    """What cannot be mailed in either form has no key."""
    fits, too_long = "é." * 25 + "x", "é." * 29 + "x"
    assert parse_mailbox(f"{AT_64[:20]}@{fits}")

    with pytest.raises(MailboxSyntaxError, match="A-labels"):
        parse_mailbox(f"{AT_64}@{too_long}")


def test_domain_limits() -> None:
    longest = ".".join(["a" * 63] * 4)
    assert longest == parse_domain(longest.upper())

    one_more = ".".join(["a" * 63] * 3 + ["a" * 62, "b"])
    for domain in (one_more, "é." * 40 + "x", "é" * 100_000):
        with pytest.raises(MailboxSyntaxError, match="domain"):
            parse_domain(domain)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("X.Example", "x.example"),
        ("localhost", "localhost"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("[192.0.2.1]", "[192.0.2.1]"),
    ],
)
def test_domain(text, key) -> None:
    assert key == parse_domain(text)


@pytest.mark.parametrize("text", ["", ".", "x.", "*.x", "@x", "u@x", "x y", "x\n", "[x]", "é\u2028"], ids=ascii)
def test_no_domain(text) -> None:
    with pytest.raises(MailboxSyntaxError):
        parse_domain(text)


@pytest.mark.parametrize(
    ("argument", "path", "parameters"),
    [
        ("<u@x>", "u@x", ""),
        ("<>", "", ""),
        ("<> SIZE=1", "", "SIZE=1"),
        ("<u@x> SIZE=1 BODY=8BITMIME", "u@x", "SIZE=1 BODY=8BITMIME"),
        ("<u@x>  ", "u@x", ""),
        ("<u@x>  NOTIFY=NEVER  ORCPT=rfc822;<v> ", "u@x", "NOTIFY=NEVER  ORCPT=rfc822;<v>"),
        ('<"a>b"@x> SIZE=1', '"a>b"@x', "SIZE=1"),
        ('<"> SIZE=1"@x>', '"> SIZE=1"@x', ""),
        (r'<"a\">b"@x>', r'"a\">b"@x', ""),
        (r'<"a\\">', r'"a\\"', ""),
        ("<a> <b>", "a", "<b>"),
        ("< u@x >", " u@x ", ""),
        ("<Postmaster>", "Postmaster", ""),
        ("<@a,@b:u@x>", "@a,@b:u@x", ""),
    ],
)
def test_path_and_parameters(argument, path, parameters) -> None:
    assert (path, parameters) == split_path(argument)


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "u@x",
        "<u@x",
        "u@x>",
        " <u@x>",
        "U <u@x>",
        "<u@x>>",
        "<u@x>SIZE=1",
        "<u@x>\tSIZE=1",
        "<u@x>\0",
        '<"a>',
        '<"a>b@x>',
        r'<"a\">b@x>',
        '<a"b@x>',
    ],
    ids=ascii,
)
def test_no_path(argument) -> None:
    with pytest.raises(MailboxSyntaxError):
        split_path(argument)


def test_only_ascii_letters_are_lowered() -> None:
    assert ascii_lower("aAZ\u212aÉİſ@[`{") == "aaz\u212aÉİſ@[`{"


# --- Properties -----------------------------------------------------------------------------------------------------

UTF8 = st.characters(min_codepoint=0x80, exclude_categories=("C", "Z"))
ASCII_ATEXT = st.sampled_from("abcxyzABCXYZ0189!#$%&'*+-/=?^_`{|}~")
ATOMS = st.text(ASCII_ATEXT | UTF8, min_size=1, max_size=5)
DOT_STRINGS = st.lists(ATOMS, min_size=1, max_size=3).map(".".join)
QTEXT = st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\') | UTF8
QUOTED_PAIRS = st.characters(min_codepoint=32, max_codepoint=126).map(lambda character: f"\\{character}")
QUOTED_STRINGS = st.lists(QTEXT | QUOTED_PAIRS, max_size=15).map(lambda content: f'"{"".join(content)}"')
LOCAL_PARTS = DOT_STRINGS | QUOTED_STRINGS

LDH_LABELS = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,8}[A-Za-z0-9])?", fullmatch=True)
U_LABELS = st.sampled_from(["bücher", "Bücher", "straße", "ελλάς", "例え", "пример", "l·l", "א1"])
DOMAINS = st.lists(LDH_LABELS | U_LABELS, min_size=1, max_size=4).map(".".join)
IPV4_LITERALS = st.ip_addresses(v=4).map(lambda address: f"[{address}]")
IPV6_TEXTS = st.ip_addresses(v=6).flatmap(lambda address: st.sampled_from([str(address), address.exploded]))
IPV6_LITERALS = st.builds("[{}:{}]".format, st.sampled_from(["IPv6", "ipv6", "IPV6"]), IPV6_TEXTS)

ADDRESSES = st.builds("{}@{}".format, LOCAL_PARTS, DOMAINS | IPV4_LITERALS | IPV6_LITERALS)

# The characters with a meaning, dense enough that near misses of the grammar come up.
NASTY = st.text(st.sampled_from('aB1é.-@"\\<>[]:;,()%! \t\0\r\n\u2028\u212a\u200b=?') | st.characters(), max_size=12)
NEAR_GRAMMAR = st.text(st.sampled_from('aB1é.-@"\\[]:> '), max_size=14)
NEAR_LITERAL = st.text(st.sampled_from("01fF:.]g%"), max_size=20).map(lambda text: f"u@[IPv6:{text}")


@given(text=ADDRESSES)
def test_every_address_of_the_grammar_is_taken(text) -> None:
    """Its text is kept, its key is a fixed point, and it comes unharmed out of the command that it is sent on in."""
    mailbox = parse_mailbox(text)
    again = parse_mailbox(mailbox.lookup_key)

    assert text == mailbox.text
    assert mailbox == again
    assert mailbox.domain == again.domain
    assert mailbox.lookup_key.endswith(f"@{mailbox.domain}")
    assert parse_domain(mailbox.domain) == mailbox.domain
    assert (text, "SIZE=1") == split_path(f"<{text}> SIZE=1")


@given(text=ADDRESSES, data=st.data())
def test_every_spelling_of_an_address_has_one_key(text, data) -> None:
    """Another case, needless quotes and backslashes, A-labels for U-labels."""
    local_part, _, domain = text.rpartition("@")
    backslashes = st.sampled_from(["", "\\"])
    content = "".join(
        character if not character.isascii() else ("\\" if character in '"\\' else data.draw(backslashes)) + character
        for character in unquoted(local_part)
    )
    spelling = f'"{content}"@{".".join(map(a_label, domain.split(".")))}'
    assume(len(content.encode()) <= 62)
    swapped = "".join(character.swapcase() if character.isascii() else character for character in spelling)

    assert parse_mailbox(text) == parse_mailbox(spelling) == parse_mailbox(swapped)


def a_label(label: str) -> str:
    return label if label.isascii() else "xn--" + label.lower().encode("punycode").decode("ascii")


SMALL = st.lists(st.sampled_from(["a", "A", ".", "é", "b", '\\"', "\\a", "\\\\", " ", "@"]), max_size=4).map("".join)
SMALL_ADDRESSES = st.builds(
    "{}@{}".format, SMALL | SMALL.map(lambda text: f'"{text}"'), st.sampled_from(["x", "X", "é.x", "xn--9ca.X", "y"])
).filter(is_mailbox)


@given(one=SMALL_ADDRESSES, other=SMALL_ADDRESSES)
def test_no_other_addresses_share_a_key(one, other) -> None:
    def meaning(text: str) -> tuple[bytes, str]:
        local_part, _, domain = text.rpartition("@")
        return unquoted(local_part).encode().lower(), ".".join(map(a_label, domain.split("."))).lower()

    same_key = parse_mailbox(one).lookup_key == parse_mailbox(other).lookup_key

    assert same_key == (meaning(one) == meaning(other))


@given(text=NEAR_GRAMMAR | NEAR_LITERAL | st.builds("{}@x".format, NEAR_GRAMMAR))
@example("u@[IPv6:1:2:3:4:5:6:7::]")
@example("u@[IPv6:1:2:3:4:5:6:1.2.3.4]")
@example("u@[IPv6:::1.2.3.4]")
@example("u@[IPv6:1.2.3.4::]")
@example("u@é1-a.B")
def test_the_reference_recogniser_agrees(text) -> None:
    assert is_mailbox(text) == (parsed(text) is not None)


PLAIN = st.text(st.sampled_from("aB1.-@+%_"), max_size=90)
LONG_LABELS = st.lists(st.integers(1, 66).map(lambda size: "a" * size), max_size=5).map(".".join)


@given(text=PLAIN | ADDRESSES | NEAR_GRAMMAR | NASTY | st.builds("{}@{}".format, LONG_LABELS, LONG_LABELS | DOMAINS))
@example("u@xn--bcher-kva.example")
@example("u@xn--")
@example("Postmaster")
@example("a@b\n")
def test_plain_address_is_read_as_by_the_grammar(text) -> None:
    """The short way for nearly every address takes nothing that the long way would not, and as the same mailbox."""
    try:
        expected = _parse_by_the_grammar(text)
    except MailboxSyntaxError:
        assert parsed(text) is None
        return
    mailbox = parse_mailbox(text)

    assert (expected.text, expected.lookup_key, expected.domain) == (mailbox.text, mailbox.lookup_key, mailbox.domain)


@given(text=NASTY | st.builds("{}@{}".format, NASTY, NASTY) | st.builds('"{}"@x'.format, NASTY))
def test_any_text_is_a_safe_mailbox_or_a_syntax_error(text) -> None:
    """Whatever is taken cannot end the path, nor the command, that it is sent on in."""
    mailbox = parsed(text)
    if mailbox is None:
        return

    assert mailbox.text == text
    assert text.isprintable()
    assert split_path(f"<{text}>") == (text, "")
    assert is_mailbox(text) or not text.isascii()
    if mailbox.domain:
        local_part, _, domain = text.rpartition("@")
        assert not set(domain) & set('@<>"\\ %!(),;')
        assert local_part.startswith('"') or not set(local_part) & set('@<>"\\ (),;:[]')


@given(text=NASTY)
def test_any_argument_is_a_path_or_a_syntax_error(text) -> None:
    try:
        path, parameters = split_path(f"<{text}")
    except MailboxSyntaxError:
        return

    assert f"<{text}".startswith(f"<{path}>")
    assert parameters in text


@given(text=st.text(max_size=30) | DOMAINS)
def test_any_domain_is_canonical_or_a_syntax_error(text) -> None:
    try:
        key = parse_domain(text)
    except MailboxSyntaxError:
        return

    assert key == parse_domain(key) == ascii_lower(key)
    assert key.isascii()


def parsed(text: str) -> Mailbox | None:
    """Parse; let any other exception than the one promised fail the test."""
    try:
        return parse_mailbox(text)
    except MailboxSyntaxError:
        return None
