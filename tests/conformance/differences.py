"""Where GuardSMTP differs from aiosmtpd's SMTP on purpose: the tests of theirs that must fail, by reason.

What is compared of a reply is its code, and the enhanced code where theirs has one. docs/aiosmtpd.md sums this up.
"""


def _numbered(test: str, *numbers: int) -> list[str]:
    return [f"{test}[{number}]" for number in numbers]


_SMTP = "test_smtp::TestSMTP"
_CONTROLLER = "test_smtp::TestSMTPWithController"
_ALL_BUT_BRACKETED = [0, 2, 4, *range(6, 19), 21, 22, *range(24, 40)]

BY_REASON: dict[str, list[str]] = {
    "A path stands in angle brackets (RFC 5321 4.1.2): 501 without them.": [
        *_numbered(f"{_SMTP}::test_mail_valid_address", *_ALL_BUT_BRACKETED),
        *_numbered(f"{_SMTP}::test_rcpt_valid_address", *_ALL_BUT_BRACKETED, 41, 42),
    ],
    "A source route is refused with 553: the guard checks the address that is mailed, not one inside it.": [
        *_numbered(f"{_SMTP}::test_mail_valid_address", 19, 20),
        *_numbered(f"{_SMTP}::test_rcpt_valid_address", 19, 20),
    ],
    "A bad reverse-path is 5.1.7 (RFC 3463 3.2); 5.1.3 is for the recipient.": [
        *_numbered(f"{_SMTP}::test_mail_invalid_address", 0, 1),
        *_numbered(f"{_SMTP}::test_mail_esmtp_invalid_address", 0, 1),
        "test_smtp::TestCustomization::test_limitlocalpart",
    ],
    "VRFY says 252 whatever it is asked: nobody learns what the address book knows.": [
        f"{_SMTP}::test_vrfy_not_address",
        "test_smtp::TestRequiredAuthentication::test_vrfy_unauthenticated",
    ],
    "Octets that are no UTF-8 are in no address: 553, not taken and handed on.": [
        f"{_CONTROLLER}::test_bad_encodings",
    ],
    "A bare CR or LF is 550: a smarthost may see another message there (SMTP smuggling).": [
        "test_smtp::TestProtocol::test_honors_mail_delimiters",
        "test_smtp::TestStrictASCII::test_data",
        "test_smtpsmuggling::TestSmuggling::test_smtp_smuggling",
    ],
    "A line of a message may have any length; it is relayed as it came, and the smarthost decides.": [
        f"{_CONTROLLER}::test_data_line_too_long",
        f"{_CONTROLLER}::test_long_line_double_count",
        f"{_CONTROLLER}::test_long_line_leak",
        f"{_CONTROLLER}::test_too_long_line_delay_error",
        f"{_CONTROLLER}::test_too_long_lines_then_too_long_body",
    ],
    "SMTPUTF8 depends on the smarthost, not on a mode; 8-bit octets in a command are read by the parser of addresses.": [
        "test_smtp::TestStrictASCII::test_ehlo",
        "test_smtp::TestStrictASCII::test_bad_encoded_param",
        "test_smtp::TestStrictASCII::test_mail_param",
    ],
    "EHLO offers more: PIPELINING, CHUNKING, DSN, ENHANCEDSTATUSCODES, and SIZE always.": [
        f"{_SMTP}::test_ehlo",
        f"{_CONTROLLER}::test_esmtp_no_size_limit",
        "test_smtp::TestAuthMechanisms::test_ehlo",
    ],
    "Any failure is 451 with a fixed text, never a permanent 500 with the text of an exception; no handler is asked.": [
        f"{_CONTROLLER}::test_unexpected_errors",
        f"{_CONTROLLER}::test_unexpected_errors_unhandled",
        f"{_CONTROLLER}::test_unexpected_errors_custom_response",
        f"{_CONTROLLER}::test_exception_handler_exception",
        f"{_CONTROLLER}::test_exception_handler_undescribable",
    ],
    "A ConnectionResetError from behind the session is a failure like any other, not the loss of the application.": [
        f"{_CONTROLLER}::test_exception_handler_multiple_connections_lost",
    ],
    "AUTH knows PLAIN and LOGIN, and no mechanism that a handler brings.": [
        "test_smtp::TestSMTPAuth::test_auth_loginteract_warning",
        "test_smtp::TestAuthMechanisms::test_custom_mechanism",
        "test_smtp::TestAuthMechanisms::test_DENYFALSE",
        "test_smtp::TestAuthMechanisms::test_DENYMISSING",
        "test_smtp::TestAuthMechanisms::test_NONE",
        "test_smtp::TestAuthArgs::test_log_authmechanisms",
    ],
    "AUTH after HELO is known, but out of place: 503.": [
        "test_smtp::TestSMTPAuth::test_helo",
    ],
    "A login is right, wrong, or cannot be checked; an authenticator words no replies and marks no session.": [
        "test_smtp::TestAuthenticator::test_success",
        "test_smtp::TestAuthenticator::test_fail_withmesg",
    ],
    "Who may not submit hears it at RCPT, whatever the recipient is; HELP is for everybody.": [
        "test_smtp::TestRequiredAuthentication::test_help_unauthenticated",
        "test_smtp::TestRequiredAuthentication::test_mail_unauthenticated",
        "test_smtp::TestRequiredAuthentication::test_data_unauthenticated",
    ],
    "STARTTLS without a certificate is a command that is not there: 502.": [
        "test_starttls::TestNoTLS::test_disabled_tls",
    ],
    "A handshake that fails ends the session; no handler is asked whether one was good enough.": [
        "test_starttls::TestStartTLS::test_failed_handshake",
        "test_starttls::TestTLSEnding::test_tls_handshake_failing",
    ],
    "A session that is idle for too long hears 421 before it is closed.": [
        "test_smtp::TestTimeout::test_timeout",
    ],
    "Commands are counted in all, with max_commands and max_errors; no limit a command.": [
        "test_smtp::TestLimits::test_limit_wrong_type",
        "test_smtp::TestLimits::test_limit_wrong_value_type",
        "test_smtp::TestLimits::test_all_limit_15",
        "test_smtp::TestLimits::test_different_limits",
        "test_smtp::TestLimits::test_different_limits_custom_default",
        "test_smtp::TestLimits::test_limit_bogus",
    ],
    "Commands are not logged, so that there is nothing in them to black out.": [
        "test_smtp::TestAuthMechanisms::test_plain1_goodcreds_sanitized_log",
    ],
    "There are no hooks for HELO, EHLO, MAIL, VRFY, RSET, AUTH and the end of the input: services stand behind a session.": [
        "test_handlers::TestHooks::test_hook_EHLO_deprecated",
        "test_handlers::TestHooks::test_hook_EHLO_deprecated_warning",
        "test_handlers::TestHooks::test_hook_EHLO_new",
        "test_handlers::TestHooks::test_hook_EHLO_incompat[TooShort]",
        "test_handlers::TestHooks::test_hook_EHLO_incompat[TooLong]",
        "test_handlers::TestHooks::test_hook_MAIL",
        "test_handlers::TestHooks::test_hook_AUTH",
        "test_handlers::TestDeprecation::test_process_message",
        "test_handlers::TestDeprecation::test_process_message_async",
        "test_handlers::TestDeprecation::test_ehlo_hook",
        "test_handlers::TestDeprecation::test_rset_hook",
        "test_smtp::TestResetCommands::test_helo",
        "test_smtp::TestResetCommands::test_ehlo",
        "test_smtp::TestResetCommands::test_rset",
        "test_smtp::TestSleepingHandler::test_close_after_helo",
        "test_starttls::TestTLSEnding::test_eof_received",
    ],
    "The parameters of MAIL are values of the envelope, not a list of words.": [
        "test_handlers::TestDebugging::test_debugging",
        "test_handlers::TestDebugging::test_debugging_bytes",
        "test_handlers::TestDebugging::test_debugging_with_options",
    ],
    "Arguments of the stock class are checked, and warned of, in the settings.": [
        "test_server::TestServer::test_warn_authreq_notls",
        "test_smtp::TestAuthArgs::test_warn_authreqnotls",
        "test_starttls::TestTLSContext::test_certreq_warn",
        "test_starttls::TestTLSContext::test_nocertreq_chkhost_warn",
    ],
    "The words of greeting and replies are our own, where a test compares whole lines.": [
        "test_smtp::TestCustomization::test_default_greeting",
        "test_smtp::TestCustomization::test_custom_greeting",
        f"{_CONTROLLER}::test_too_long_body_delay_error",
    ],
}

DIFFERENCES = {test: reason for reason, tests in BY_REASON.items() for test in tests}
