"""The decision about one recipient, at RCPT and after the end of data."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpguard.domain.decision import Decision, Reason, Verdict, decide, decide_after_data, standing_for
from smtpguard.domain.mailbox import parse_mailbox
from smtpguard.domain.policy import FlaggedPolicy, Mode, Policy, UnverifiedPolicy
from smtpguard.domain.standing import NOTHING_ON_RECORD, AddressFacts, CustomerUnnamed, Standing

JOHN = parse_mailbox("john@example.net")
NOT_YET, NONE, UNCLEAR = CustomerUnnamed.NOT_YET, CustomerUnnamed.NONE, CustomerUnnamed.UNCLEAR

ON_RECORD = replace(NOTHING_ON_RECORD, on_record=True)
OF_OTHERS = replace(ON_RECORD, bound_to_others=True)
VOUCHED = replace(ON_RECORD, vouched_address_wide=True)
VOUCHED_SHARED = replace(VOUCHED, bound_to_others=True)
VOUCHED_SHARED_BOUND = replace(VOUCHED_SHARED, bound_to_customer=True)
OWN = replace(ON_RECORD, vouched_for_any_customer=True, vouched_for_customer=True, bound_to_customer=True)
OWN_SHARED = replace(OWN, bound_to_others=True)
OWN_AND_WIDE_SHARED = replace(OWN_SHARED, vouched_address_wide=True)
OF_ANOTHER = replace(ON_RECORD, vouched_for_any_customer=True, bound_to_others=True)
OF_ANOTHER_AND_WIDE = replace(OF_ANOTHER, vouched_address_wide=True)

DEFAULT = Policy()
REJECT = Policy(unverified=UnverifiedPolicy.REJECT, flagged=FlaggedPolicy.REJECT)
FLAGS_ONLY = Policy(unverified=UnverifiedPolicy.RELAY)
OBSERVE = Policy(mode=Mode.OBSERVE)
OBSERVE_REJECT = replace(REJECT, mode=Mode.OBSERVE)
TRUSTING = Policy(trusted_domains=frozenset({"example.net"}))
TRUSTING_REJECT = replace(REJECT, trusted_domains=frozenset({"example.org", "example.net"}))
TRUSTING_OBSERVE = replace(TRUSTING, mode=Mode.OBSERVE)
TRUSTING_ANOTHER = Policy(trusted_domains=frozenset({"net", "sub.example.net", "example.org"}))


def flagged(facts: AddressFacts) -> AddressFacts:
    return replace(facts, flagged=True)


TABLE = [
    # facts, customer, policy, verdict, reason, would be
    (NOTHING_ON_RECORD, NOT_YET, DEFAULT, Verdict.QUARANTINE, Reason.UNKNOWN, None),
    (NOTHING_ON_RECORD, "c-1", DEFAULT, Verdict.QUARANTINE, Reason.UNKNOWN, None),
    (NOTHING_ON_RECORD, UNCLEAR, DEFAULT, Verdict.QUARANTINE, Reason.CUSTOMER_UNCLEAR, None),
    (NOTHING_ON_RECORD, NONE, REJECT, Verdict.REJECT, Reason.UNKNOWN, None),
    (NOTHING_ON_RECORD, NONE, FLAGS_ONLY, Verdict.RELAY, Reason.UNKNOWN, None),
    (NOTHING_ON_RECORD, NONE, OBSERVE, Verdict.RELAY, Reason.UNKNOWN, Verdict.QUARANTINE),
    (NOTHING_ON_RECORD, NONE, OBSERVE_REJECT, Verdict.RELAY, Reason.UNKNOWN, Verdict.REJECT),
    (NOTHING_ON_RECORD, NONE, TRUSTING, Verdict.RELAY, Reason.TRUSTED_DOMAIN, None),
    (NOTHING_ON_RECORD, NONE, TRUSTING_REJECT, Verdict.RELAY, Reason.TRUSTED_DOMAIN, None),
    (NOTHING_ON_RECORD, NONE, TRUSTING_OBSERVE, Verdict.RELAY, Reason.TRUSTED_DOMAIN, None),
    (NOTHING_ON_RECORD, NONE, TRUSTING_ANOTHER, Verdict.QUARANTINE, Reason.UNKNOWN, None),
    (ON_RECORD, NOT_YET, DEFAULT, Verdict.QUARANTINE, Reason.NOT_VERIFIED, None),
    (ON_RECORD, NONE, DEFAULT, Verdict.QUARANTINE, Reason.NOT_VERIFIED, None),
    (ON_RECORD, UNCLEAR, DEFAULT, Verdict.QUARANTINE, Reason.CUSTOMER_UNCLEAR, None),
    (OF_OTHERS, "c-1", DEFAULT, Verdict.QUARANTINE, Reason.NOT_VERIFIED, None),
    (ON_RECORD, "c-1", REJECT, Verdict.REJECT, Reason.NOT_VERIFIED, None),
    (ON_RECORD, "c-1", FLAGS_ONLY, Verdict.RELAY, Reason.NOT_VERIFIED, None),
    (ON_RECORD, "c-1", OBSERVE, Verdict.RELAY, Reason.NOT_VERIFIED, Verdict.QUARANTINE),
    (ON_RECORD, UNCLEAR, TRUSTING, Verdict.RELAY, Reason.TRUSTED_DOMAIN, None),
    (VOUCHED, NOT_YET, DEFAULT, Verdict.RELAY, Reason.VERIFIED, None),
    (VOUCHED, NONE, DEFAULT, Verdict.RELAY, Reason.VERIFIED, None),
    (VOUCHED, "c-1", DEFAULT, Verdict.RELAY, Reason.VERIFIED, None),
    (VOUCHED, UNCLEAR, DEFAULT, Verdict.QUARANTINE, Reason.CUSTOMER_UNCLEAR, None),
    (VOUCHED, UNCLEAR, REJECT, Verdict.REJECT, Reason.CUSTOMER_UNCLEAR, None),
    (VOUCHED, UNCLEAR, OBSERVE, Verdict.RELAY, Reason.CUSTOMER_UNCLEAR, Verdict.QUARANTINE),
    (VOUCHED, "c-1", OBSERVE, Verdict.RELAY, Reason.VERIFIED, None),
    (VOUCHED, "c-1", TRUSTING, Verdict.RELAY, Reason.TRUSTED_DOMAIN, None),
    (VOUCHED_SHARED, NOT_YET, DEFAULT, Verdict.RELAY, Reason.VERIFIED, None),
    (VOUCHED_SHARED, NONE, DEFAULT, Verdict.RELAY, Reason.VERIFIED, None),
    (VOUCHED_SHARED, "c-1", DEFAULT, Verdict.QUARANTINE, Reason.SHARED_ADDRESS, None),
    (VOUCHED_SHARED_BOUND, "c-1", DEFAULT, Verdict.QUARANTINE, Reason.SHARED_ADDRESS, None),
    (VOUCHED_SHARED_BOUND, "c-1", REJECT, Verdict.REJECT, Reason.SHARED_ADDRESS, None),
    (VOUCHED_SHARED_BOUND, "c-1", FLAGS_ONLY, Verdict.RELAY, Reason.SHARED_ADDRESS, None),
    (VOUCHED_SHARED_BOUND, "c-1", OBSERVE, Verdict.RELAY, Reason.SHARED_ADDRESS, Verdict.QUARANTINE),
    (OWN, "c-1", DEFAULT, Verdict.RELAY, Reason.VERIFIED, None),
    (OWN_SHARED, "c-1", DEFAULT, Verdict.RELAY, Reason.VERIFIED, None),
    (OWN_AND_WIDE_SHARED, "c-1", DEFAULT, Verdict.RELAY, Reason.VERIFIED, None),
    (OWN, UNCLEAR, DEFAULT, Verdict.QUARANTINE, Reason.CUSTOMER_UNCLEAR, None),
    (OF_ANOTHER, NOT_YET, DEFAULT, Verdict.RELAY, Reason.VERIFIED, None),
    (OF_ANOTHER, NONE, DEFAULT, Verdict.QUARANTINE, Reason.NOT_VERIFIED_FOR_CUSTOMER, None),
    (OF_ANOTHER, "c-1", DEFAULT, Verdict.QUARANTINE, Reason.NOT_VERIFIED_FOR_CUSTOMER, None),
    (OF_ANOTHER, "c-1", REJECT, Verdict.REJECT, Reason.NOT_VERIFIED_FOR_CUSTOMER, None),
    (OF_ANOTHER, "c-1", OBSERVE, Verdict.RELAY, Reason.NOT_VERIFIED_FOR_CUSTOMER, Verdict.QUARANTINE),
    (OF_ANOTHER_AND_WIDE, NONE, DEFAULT, Verdict.RELAY, Reason.VERIFIED, None),
    (OF_ANOTHER_AND_WIDE, "c-1", DEFAULT, Verdict.QUARANTINE, Reason.SHARED_ADDRESS, None),
    (flagged(NOTHING_ON_RECORD), NOT_YET, DEFAULT, Verdict.QUARANTINE, Reason.FLAGGED, None),
    (flagged(VOUCHED), NOT_YET, DEFAULT, Verdict.QUARANTINE, Reason.FLAGGED, None),
    (flagged(OWN), "c-1", DEFAULT, Verdict.QUARANTINE, Reason.FLAGGED, None),
    (flagged(VOUCHED), UNCLEAR, DEFAULT, Verdict.QUARANTINE, Reason.FLAGGED, None),
    (flagged(OWN), "c-1", REJECT, Verdict.REJECT, Reason.FLAGGED, None),
    (flagged(OWN), "c-1", FLAGS_ONLY, Verdict.QUARANTINE, Reason.FLAGGED, None),
    (flagged(OWN), "c-1", TRUSTING, Verdict.QUARANTINE, Reason.FLAGGED, None),
    (flagged(OWN), "c-1", TRUSTING_REJECT, Verdict.REJECT, Reason.FLAGGED, None),
    (flagged(OWN), "c-1", OBSERVE, Verdict.RELAY, Reason.FLAGGED, Verdict.QUARANTINE),
    (flagged(OWN), "c-1", OBSERVE_REJECT, Verdict.RELAY, Reason.FLAGGED, Verdict.REJECT),
    (flagged(OWN), "c-1", TRUSTING_OBSERVE, Verdict.RELAY, Reason.FLAGGED, Verdict.QUARANTINE),
]


@pytest.mark.parametrize(("facts", "customer", "policy", "verdict", "reason", "would_be"), TABLE)
def test_decision(facts, customer, policy, verdict, reason, would_be) -> None:
    expected = Decision(JOHN, verdict, reason, would_be=would_be)

    assert expected == decide(JOHN, facts, customer, policy)


def test_every_reason_is_met_by_the_table() -> None:
    """But for those that are given elsewhere: for a mark, at a release, by a store that cannot be asked."""
    met = {reason for *_, reason, _ in TABLE}

    assert set(Reason) == met | {Reason.VERIFICATION_MAIL, Reason.RELEASED, Reason.STORE_UNAVAILABLE}


@pytest.mark.parametrize(
    ("facts", "customer", "standing"),
    [
        (NOTHING_ON_RECORD, NONE, Standing.UNKNOWN),
        (ON_RECORD, NONE, Standing.UNVERIFIED),
        (OF_ANOTHER, "c-1", Standing.UNVERIFIED),
        (VOUCHED, "c-1", Standing.VERIFIED),
        (flagged(VOUCHED), "c-1", Standing.FLAGGED),
    ],
)
def test_standing_for_a_customer(facts, customer, standing) -> None:
    assert standing == standing_for(facts, customer)[0]


@pytest.mark.parametrize(
    "address",
    [
        "stranger%elsewhere.example@example.net",
        "elsewhere.example!stranger@example.net",
        '"stranger@elsewhere.example"@example.net',
        '"@elsewhere.example:stranger"@example.net',
    ],
)
def test_route_through_a_trusted_domain(address) -> None:
    """The smarthost may send it on to a stranger, so that it must be verified like any other address."""
    recipient = parse_mailbox(address)
    quarantined = Decision(recipient, Verdict.QUARANTINE, Reason.UNKNOWN)
    verified = Decision(recipient, Verdict.RELAY, Reason.VERIFIED)

    assert quarantined == decide(recipient, NOTHING_ON_RECORD, NONE, TRUSTING)
    assert verified == decide(recipient, VOUCHED, NONE, TRUSTING)


@pytest.mark.parametrize("address", ["Postmaster", "john@sub.example.net", "john@example.net.evil.example"])
def test_address_outside_the_trusted_domain(address) -> None:
    recipient = parse_mailbox(address)

    assert decide(recipient, NOTHING_ON_RECORD, NONE, TRUSTING).verdict is Verdict.QUARANTINE


def decision(verdict: Verdict, reason: Reason, would_be: Verdict | None = None) -> Decision:
    return Decision(JOHN, verdict, reason, would_be)


RELAYED = decision(Verdict.RELAY, Reason.VERIFIED)
QUARANTINED = decision(Verdict.QUARANTINE, Reason.UNKNOWN)
SHARED = decision(Verdict.QUARANTINE, Reason.SHARED_ADDRESS)
FLAGGED = decision(Verdict.QUARANTINE, Reason.FLAGGED)
REJECTED = decision(Verdict.REJECT, Reason.FLAGGED)
DEFERRED = decision(Verdict.DEFER, Reason.STORE_UNAVAILABLE)
OBSERVED = decision(Verdict.RELAY, Reason.FLAGGED, Verdict.REJECT)


@pytest.mark.parametrize(
    ("before", "after", "joined"),
    [
        (RELAYED, RELAYED, RELAYED),
        (RELAYED, SHARED, SHARED),
        (RELAYED, REJECTED, FLAGGED),
        (RELAYED, OBSERVED, OBSERVED),
        (RELAYED, DEFERRED, DEFERRED),
        (QUARANTINED, RELAYED, QUARANTINED),
        (QUARANTINED, FLAGGED, FLAGGED),
        (QUARANTINED, REJECTED, FLAGGED),
        (QUARANTINED, QUARANTINED, QUARANTINED),
        (OBSERVED, RELAYED, RELAYED),
        (OBSERVED, OBSERVED, OBSERVED),
    ],
)
def test_decision_after_data(before, after, joined) -> None:
    """It can only become stricter, and who got 250 can no longer be rejected."""
    assert joined == decide_after_data(before, after)


FACTS = st.builds(
    AddressFacts,
    on_record=st.booleans(),
    flagged=st.booleans(),
    vouched_address_wide=st.booleans(),
    vouched_for_any_customer=st.booleans(),
    vouched_for_customer=st.booleans(),
    bound_to_customer=st.booleans(),
    bound_to_others=st.booleans(),
)
CUSTOMERS = st.sampled_from(CustomerUnnamed) | st.sampled_from(["c-1", "c-2"])
DOMAINS = st.sampled_from([frozenset(), frozenset({"example.net"}), frozenset({"example.org"})])
ENFORCING = st.builds(
    Policy,
    unverified=st.sampled_from(UnverifiedPolicy),
    flagged=st.sampled_from(FlaggedPolicy),
    trusted_domains=DOMAINS,
)
DISTRUSTING = st.builds(
    Policy,
    unverified=st.sampled_from([UnverifiedPolicy.QUARANTINE, UnverifiedPolicy.REJECT]),
    flagged=st.sampled_from(FlaggedPolicy),
)
ANY_POLICY = st.builds(replace, ENFORCING, mode=st.sampled_from(Mode))
DECISIONS = st.builds(decide, st.just(JOHN), FACTS, CUSTOMERS, ANY_POLICY)


@given(facts=FACTS, customer=CUSTOMERS, policy=ENFORCING)
def test_never_relayed_to_a_flagged_address(facts, customer, policy) -> None:
    assert decide(JOHN, flagged(facts), customer, policy).verdict is not Verdict.RELAY


@given(facts=FACTS, customer=CUSTOMERS, policy=DISTRUSTING)
def test_never_relayed_without_any_voucher(facts, customer, policy) -> None:
    facts = replace(
        facts, vouched_address_wide=False, vouched_for_any_customer=False, vouched_for_customer=False
    )  # the address may be on record, and bound to whomever

    assert decide(JOHN, facts, customer, policy).verdict is not Verdict.RELAY


@given(facts=FACTS, customer=CUSTOMERS, policy=DISTRUSTING)
def test_never_relayed_to_an_address_that_is_not_on_record(facts, customer, policy) -> None:
    assert decide(JOHN, replace(facts, on_record=False), customer, policy).verdict is not Verdict.RELAY


@given(facts=FACTS, customer=st.sampled_from(["c-1", "c-2"]), policy=DISTRUSTING)
def test_never_relayed_to_an_address_of_others_without_a_voucher_of_ones_own(facts, customer, policy) -> None:
    facts = replace(facts, bound_to_others=True, vouched_for_customer=False)

    assert decide(JOHN, facts, customer, policy).verdict is not Verdict.RELAY


@given(facts=FACTS, policy=DISTRUSTING)
def test_never_relayed_once_the_customer_is_unclear(facts, policy) -> None:
    assert decide(JOHN, facts, UNCLEAR, policy).verdict is not Verdict.RELAY


@given(facts=FACTS, customer=CUSTOMERS, policy=DISTRUSTING)
def test_naming_the_customer_is_never_laxer_than_not_yet(facts, customer, policy) -> None:
    """What RCPT quarantined, the end of data could not relay."""
    at_rcpt = decide(JOHN, facts, NOT_YET, policy)

    if decide(JOHN, facts, customer, policy).verdict is Verdict.RELAY:
        assert at_rcpt.verdict is Verdict.RELAY


@given(facts=FACTS, customer=CUSTOMERS, policy=ENFORCING)
def test_observing_relays_and_records_the_verdict(facts, customer, policy) -> None:
    enforced = decide(JOHN, facts, customer, policy)
    observed = decide(JOHN, facts, customer, replace(policy, mode=Mode.OBSERVE))

    assert observed.verdict is Verdict.RELAY
    assert observed.reason is enforced.reason
    assert observed.would_be == (None if enforced.verdict is Verdict.RELAY else enforced.verdict)


@given(facts=FACTS, customer=CUSTOMERS, policy=ANY_POLICY)
def test_verification_is_awaited_where_it_would_help(facts, customer, policy) -> None:
    """Never of a flagged address, nor where the message is relayed in any case."""
    decision = decide(JOHN, facts, customer, policy)
    verified = replace(
        facts, on_record=True, vouched_for_customer=True, vouched_address_wide=True, bound_to_others=False
    )
    kept = (decision.would_be or decision.verdict) is not Verdict.RELAY

    assert decision.awaits_verification == (kept and not facts.flagged)
    if decision.awaits_verification and customer is not UNCLEAR:
        assert decide(JOHN, verified, customer, policy).reason is Reason.VERIFIED


@given(before=DECISIONS | st.just(DEFERRED), after=DECISIONS)
def test_the_end_of_data_relays_only_what_rcpt_relayed(before, after) -> None:
    joined = decide_after_data(before, after)

    assert joined.verdict is not Verdict.REJECT or before.verdict is Verdict.REJECT
    assert joined.verdict is not Verdict.RELAY or (before.verdict is after.verdict is Verdict.RELAY)
