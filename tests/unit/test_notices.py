"""Notices, tokens, preferences, audit, the mail server's log: the rules that hold in any order."""

import sqlite3
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import audit, notices, outbox
from esgf_gossip.tracking.audit import Step, nameless
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.joining import add_match, said_from_bytes, said_to_bytes, unite
from esgf_gossip.tracking.mailing import SCRIPTS
from esgf_gossip.tracking.matches import DATASETS_NAMED, FILES_NAMED, FetchedFile, Match
from esgf_gossip.tracking.mta_log import accepted
from esgf_gossip.tracking.notices import Bounds
from esgf_gossip.tracking.outbox import Mail, Outcome, Result
from esgf_gossip.tracking.persons import due_identities, openid_key, usable_address
from esgf_gossip.tracking.preferences import Preferences, ScopeError, check_scope
from esgf_gossip.tracking.resolution import Finding, Resolution
from esgf_gossip.tracking.send_rates import SendRates
from esgf_gossip.tracking.tokens import Purpose, TokenError, make_token, read_token
from esgf_gossip.trust.sealed_values import SealedValues
from helpers.mailing import NOW_MS, a_change, a_match, datasets, openid

BOUNDS = Bounds(30 * 86_400_000, 1000, 7 * 86_400_000)
CHANGES = [a_change(f"CMIP6.a.b.v{number}") for number in (1, 2)]


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """Give a key of a node."""
    return SealedValues(tmp_path_factory.mktemp("key") / "key")


def connect():
    """Give a database in memory with all tables."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    for script in SCRIPTS.values():
        connection.executescript(script)
    return connection


def answer(connection, values, user, finding=Finding.FOUND):
    """Have the address of a user found: two users have one."""
    address = {"anna": "Anna@site.org", "anna-2": "anna@SITE.org"}.get(user, f"{user}@site.org")
    resolution = Resolution(finding, address if finding is Finding.FOUND else "")
    notices.settle(connection, values, openid_key(values, openid(user)), resolution, NOW_MS, Random(1))


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("take"),
            st.sampled_from(CHANGES),
            st.sampled_from(["anna", "anna-2", "bob", "eve"]),
            st.sampled_from(["a", "b", "c"]),
            st.lists(st.sampled_from(["1.nc", "2.nc", "3.nc"]), max_size=3, unique=True),
        ),
        st.tuples(
            st.just("answer"),
            st.sampled_from(["anna", "anna-2", "bob", "eve"]),
            st.sampled_from([Finding.FOUND, Finding.FOUND, Finding.UNANSWERED]),
        ),
    ),
    max_size=25,
)


@settings(max_examples=40)
@given(steps=STEPS, seed=st.integers(0, 1000))
def test_any_order_and_repetition_gives_one_notice_for_a_person_and_change(values, steps, seed):
    """Whatever comes when and how often, each person has one notice of each change, with the files of all nodes."""
    shuffled = steps * 2
    Random(seed).shuffle(shuffled)
    found = []
    for order in (steps, shuffled):
        connection = connect()
        for step in order:
            if step[0] == "take":
                _, change, user, node, files = step
                notices.take(connection, values, BOUNDS, change, [a_match(change, user, files)], node, NOW_MS)
            else:
                answer(connection, values, *step[1:])
        for user in ("anna", "anna-2", "bob", "eve"):
            answer(connection, values, user)
        told = {}
        for person, key in connection.execute("SELECT person, change_key FROM notice"):
            assert (person, key) not in told
            match = notices.match_of(connection, values, person, key)
            told[person, key] = ({file.name for file in match.files}, match.dataset_count)
        found.append(told)
    assert found[0] == found[1]
    wanted = {
        (user.partition("-")[0], change.key)
        for kind, change, user, *_ in (s for s in steps if s[0] == "take")
    }
    assert len(found[0]) == len(wanted)


FILES = st.lists(
    st.tuples(st.sampled_from([f"{n}.nc" for n in range(30)]), st.integers(1, 50), st.booleans()), max_size=25
)


@given(
    said=st.lists(st.tuples(st.sampled_from("abc"), FILES), min_size=1, max_size=6), seed=st.integers(0, 99)
)
def test_joining_knows_no_order_and_no_repetition(said, seed):
    """What several nodes say in any order, again and again, is one match: the newest files, bounded."""
    change = CHANGES[0]

    def match(files):
        named = tuple(FetchedFile(change.datasets[0], name, "dn", at, same) for name, at, same in files)
        return Match(
            change.key,
            openid("x"),
            named,
            len(named),
            change.datasets,
            1,
            max([0, *(at for _, at, _ in files)]),
        )

    again = said * 2
    Random(seed).shuffle(again)
    results = []
    for order in (said, again):
        joined = {}
        for node, files in order:
            joined = add_match(joined, node, match(files))
        assert said_from_bytes(said_to_bytes(joined)) == joined
        results.append(unite(joined.values()))
    assert results[0] == results[1]
    assert len(results[0].files) <= FILES_NAMED
    times = [file.fetched_ms for file in results[0].files]
    assert times == sorted(times, reverse=True)


def test_datasets_of_a_match_are_bounded(values):
    """An erratum of thousands: a hundred names, and the number of all."""
    names = datasets(150)
    match = a_match(CHANGES[0], datasets=names, dataset_count=2747)
    joined = add_match({}, "a", match)
    assert len(joined["a"].datasets) == DATASETS_NAMED
    assert unite(joined.values()).dataset_count == 2747


def test_each_openid_is_asked_for_once_at_a_time(values):
    """However many changes wait for it; and not while it is being asked."""
    connection = connect()
    for change in CHANGES:
        notices.take(connection, values, BOUNDS, change, [a_match(change, "bob")], "a", NOW_MS)
    due, _ = due_identities(connection, values, NOW_MS, 10, frozenset())
    assert [who for _, who in due] == [openid("bob")]
    assert due_identities(connection, values, NOW_MS, 10, frozenset(key for key, _ in due)) == ([], None)
    answer(connection, values, "bob")
    later = a_change("CMIP6.z.v1")
    notices.take(connection, values, BOUNDS, later, [a_match(later, "bob")], "a", NOW_MS)
    assert due_identities(connection, values, NOW_MS, 10, frozenset())[0] == []
    assert connection.execute("SELECT count(*) FROM notice").fetchone() == (3,)


def test_matches_of_another_change_are_left_out(values):
    """A node cannot hide one change in another."""
    connection = connect()
    assert notices.take(connection, values, BOUNDS, CHANGES[0], [a_match(CHANGES[1])], "a", NOW_MS) == 0


def test_tokens_are_for_one_person_and_purpose_of_one_node(values, tmp_path):
    """Cut, changed in any letter, for another purpose or of another node: refused."""
    token = make_token(values, Purpose.UNSUBSCRIBE, b"p" * 16, "dataset:CMIP6.a.b")
    assert read_token(values, Purpose.UNSUBSCRIBE, token) == (b"p" * 16, "dataset:CMIP6.a.b")
    forged = {token[:n] for n in range(len(token))} | {
        token + "A",
        "",
        "é",
        "A" * 700,
        f"{token}=",
        f" {token}",
    }
    forged |= {token[:n] + ("A" if token[n] != "A" else "B") + token[n + 1 :] for n in range(len(token))}
    for one in forged:
        with pytest.raises(TokenError):
            read_token(values, Purpose.UNSUBSCRIBE, one)
    for keys, purpose in (
        (values, Purpose.PREFERENCES),
        (SealedValues(tmp_path / "other"), Purpose.UNSUBSCRIBE),
    ):
        with pytest.raises(TokenError):
            read_token(keys, purpose, token)


@pytest.mark.parametrize("scope", ["all", "type:retracted", "type:erratum", "dataset:CMIP6.a.b"])
def test_scopes(scope):
    """Nothing, one kind, one dataset; what else is written is none."""
    assert check_scope(scope) == scope
    for wrong in (f"{scope}!", scope.upper(), "", "type:", "dataset:", "bounced", "dataset:" + "x" * 400):
        with pytest.raises(ScopeError):
            check_scope(wrong)


def test_what_is_wanted():
    """A dataset is unsubscribed from in all its versions; a change of several while one of them is wanted."""
    change = CHANGES[0]
    several = a_change("CMIP6.a.b.v1", "erratum", datasets=datasets(2))
    wants = lambda one, held, *scopes: Preferences(frozenset(scopes), is_immediate=False).wants(one, held)
    assert wants(change, change.datasets)
    assert not wants(change, change.datasets, "all")
    assert not wants(change, change.datasets, "bounced")
    assert not wants(change, change.datasets, "type:retracted")
    assert wants(change, change.datasets, "type:erratum")
    assert not wants(change, change.datasets, "dataset:CMIP6.a.b")
    one, two = (f"dataset:{name.master_id}" for name in datasets(2))
    assert wants(several, datasets(2), one)
    assert not wants(several, datasets(2), one, two)


def test_the_audit_only_grows():
    """No line is changed or taken away but by an erasure and by age, which are counted themselves."""
    connection = connect()
    audit.note(connection, 1000, Step.SENT, "x", person=b"p", code=250)
    audit.note(connection, 5000, Step.SENT, "y", person=b"q")
    audit.note(connection, 5500, Step.HELD, "z")
    for text in (
        "UPDATE audit SET detail = 'z'",
        "UPDATE audit SET person = x'00'",
        "UPDATE audit SET person = NULL, code = 1",
        "DELETE FROM audit",
        "UPDATE audit SET at_ms = 1 WHERE person IS NULL",
        "DELETE FROM audit WHERE person IS NULL",
        "UPDATE audit_floor SET before_ms = -1",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(text)
    assert audit.erase_person(connection, b"p", 6000) == 1
    assert audit.forget_before(connection, 2000, 7000) == 1
    assert [(one["step"], one["person"], one["detail"]) for one in audit.lines(connection, 10)] == [
        ("sent", "71", "y"),
        ("held", None, "z"),
        ("erased", None, "a person was taken out of 1 lines"),
        ("forgotten", None, "1 lines were older than they are kept"),
    ]


@pytest.mark.parametrize(
    "words",
    [
        "550 <jane@site.org>: gone",
        "jane@site.org",
        "to=<a@b>,x",
        "x\r\njane@site.org\ty",
        "mailto:jane@site.org",
    ],
)
def test_no_address_in_words_of_a_server(words):
    """Whatever stands around it."""
    assert "@" not in nameless(words)
    assert "\n" not in nameless(words)


@pytest.mark.parametrize(
    ("address", "usable"),
    [
        ("Jane.Doe@Site.org", "Jane.Doe@Site.org"),
        (" a@b.org ", "a@b.org"),
        ("a@münchen.de", "a@xn--mnchen-3ya.de"),
        ("a@b", ""),
    ],
)
def test_addresses_as_they_are_mailed_to(address, usable):
    """As their source spells them; a domain of other letters as DNS has it."""
    assert usable_address(address) == usable


LOG = """\
Nov 28 mx postfix/smtpd[1]: AAA: client=localhost[127.0.0.1]
Nov 28 mx postfix/cleanup[2]: AAA: message-id=<taken@h>
Nov 28 mx postfix/qmgr[3]: AAA: from=<n@h>, size=1, nrcpt=1 (queue active)
Nov 28 mx postfix/cleanup[2]: BBB: message-id=<cut@h>
Nov 28 mx postfix/smtpd[1]: lost connection after DATA (500 bytes) from localhost[127.0.0.1]
Nov 28 mx postfix/cleanup[2]: BBB: message-id=<other@h>
Nov 28 mx postfix/qmgr[3]: BBB: from=<n@h>, size=1, nrcpt=1 (queue active)
Nov 28 mx postfix/outbound/cleanup[2]: CCC: message-id=<multi@h>
Nov 28 mx postfix/outbound/qmgr[3]: CCC: from=<n@h>, size=1, nrcpt=1 (queue active)
2026-11-28 10:00:00 1abc-0001-AB <= n@h H=localhost [127.0.0.1] P=esmtp S=800 id=exim@h
2026-11-28 10:00:00 1abc-0001-AB => jane@site.org R=dnslookup T=remote_smtp id=<no@h>
"""


def test_what_a_mail_server_took(tmp_path):
    """Postfix names a Message-ID before it has the mail: only what went into the queue counts; the log of yesterday too."""
    path = tmp_path / "mail.log"
    path.write_text("Nov 28 mx postfix/qmgr[3]: DDD: from=<n@h>, size=1\n" + "x" * 100_000 + "\n")
    (tmp_path / "mail.log.1").write_text(LOG + "Nov 27 mx postfix/cleanup[2]: DDD: message-id=<night@h>\n")
    wanted = [f"<{name}@h>" for name in ("taken", "cut", "multi", "exim", "no", "night")]
    assert accepted(path, wanted) == {"<taken@h>", "<multi@h>", "<exim@h>", "<night@h>"}
    assert accepted(path, wanted, 10) == frozenset()
    with pytest.raises(OSError):
        accepted(tmp_path / "none", wanted)


@given(
    st.lists(st.tuples(st.floats(0, 0.4), st.floats(0, 0.3), st.integers(0, 2)), max_size=60),
    st.integers(1, 6),
    st.integers(1, 4),
)
def test_no_window_of_a_second_has_more_than_the_rate(steps, per_s, domain_per_s):
    """Wherever between its first command and its last answer a server counts a mail."""
    rates, now, seen = SendRates(per_s, domain_per_s, 0.0), 0.0, []
    for pause, takes, domain in steps:
        now += pause
        name = b"%d" % domain
        while rates.wait_s(now) > 0 or name in rates.full_domains(now):
            now += max(rates.wait_s(now), rates.full_domains(now).get(name, 0.0))
        begin, now = now, now + takes
        rates.note(name, now)
        seen.append((begin, now, domain))
    assert all(begin >= 1.0 for begin, _, _ in seen)
    for place, (_, end, domain) in enumerate(seen):
        later = [one for one in seen[place + 1 :] if one[0] < end + 1.0]
        assert len(later) < per_s
        assert len([one for one in later if one[2] == domain]) < domain_per_s


def test_a_database_of_all_parts_opens_twice(tmp_path):
    """The scripts fit together in one file."""
    for _ in range(2):
        database = TrackingDatabase(tmp_path / "tracking.db", SCRIPTS, AtOnce())
        names = database.now(lambda connection: connection.execute("SELECT name FROM script").fetchall())
        assert {name for (name,) in names} == set(SCRIPTS)
        database.close()


def test_an_outcome_of_a_mail_that_was_erased_changes_nothing(values):
    """Somebody was erased while the mail was on its way."""
    mail = Mail(5, b"d", "a@b.org", "c@d.org", b"x")
    assert outbox.settle(connect(), mail, Outcome(Result.ACCEPTED, 250), NOW_MS, Random(1)) == ""
