"""From matches to mails, with a clock of its own: who is told, when, how often, and what happens when it goes wrong."""

import itertools

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from esgf_gossip.tracking.holds import HoldError
from esgf_gossip.tracking.identity import parse_dataset
from esgf_gossip.tracking.mail_text import MAIL_BYTES
from esgf_gossip.tracking.outbox import Outcome, Result
from esgf_gossip.tracking.resolution import Finding, Resolution
from helpers.mailing import (
    DAY_S,
    NAME,
    NOW_MS,
    URL,
    a_change,
    a_match,
    datasets,
    found,
    link_of,
    openid,
)


def test_one_mail_for_one_person_and_change(office):
    """Three nodes, two OpenIDs of one address, everything twice: one mail that has the files of all."""
    change = a_change(reason="wrong units")
    for _ in range(2):
        for node in ("a", "b", "c"):
            for user in ("jane", "jane-2"):
                office.take(change, a_match(change, user, [f"{node}.nc"], host=f"{node}.org"), node=node)
    office.wait(5)
    office.take(change, a_match(change, "jane", ["late.nc"]), node="d")
    office.wait(5)
    assert office.server.recipients in (["jane@site.org"], ["JANE@site.org"])
    text = office.server.messages()[0].get_body(("plain",)).get_content()
    assert all(f"{node}.nc" in text and f"from {node}.org" in text for node in "abc")
    assert "wrong units" in text
    assert office.mailing.counts()["sent"] == 1


def test_who_has_no_address_is_asked_for_again_and_unknown_users_never(offices):
    """Nobody answers: asked again, less and less often; unknown: final, and noted without a name."""
    asked = []

    def resolve(who):
        asked.append(office.clock.seconds())
        if who == openid("ghost"):
            return succeed(Resolution(Finding.UNKNOWN, reason="no such user"))
        if len(asked) < 6:
            return (
                fail(OSError("jane@site.org")) if len(asked) % 2 else succeed(Resolution(Finding.UNANSWERED))
            )
        return found(who)

    office = offices(resolve=resolve)
    change = a_change()
    office.take(change, a_match(change, "jane"))
    office.wait(4 * 3600, 20.0)
    waits = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert len(asked) == 6
    assert waits[0] >= 30
    assert waits[-1] > 4 * waits[0]
    assert office.server.recipients == ["jane@site.org"]
    office.take(change, a_match(change, "ghost"))
    office.wait(DAY_S, 60.0)
    assert len(asked) == 7
    assert office.audit("unknown") == ["no such user"]


def test_an_address_that_would_be_a_header_is_no_address(offices):
    """What an identity provider says goes into no header and no command unless it is one plain address."""
    evil = [
        "a@b.org\r\nBcc: c@d.org",
        "a@b.org, c@d.org",
        "<a@b.org>",
        "a b@c.org",
        "a@b",
        "@b.org",
        "ü@b.org",
        "a@" + "b" * 300 + ".org",
    ]
    office = offices(
        resolve=lambda who: succeed(Resolution(Finding.FOUND, evil[int(who.rpartition("/")[2])]))
    )
    change = a_change()
    office.take(change, *(a_match(change, str(number)) for number in range(len(evil))))
    office.wait(10)
    assert office.server.mails == []
    assert office.audit("unknown") == ["the address cannot be mailed to"] * len(evil)


def test_quiet_period_and_longest_delay(offices):
    """A mail waits until nothing came for the quiet period, but never longer than the longest delay since the first."""
    office = offices(quiet_minutes=10, max_delay_minutes=35)
    names = [f"CMIP6.a.b.c.e{number}.r1.v1" for number in range(8)]
    change = a_change(names[0])
    office.take(change, a_match(change))
    office.wait(9 * 60, 10.0)
    assert office.server.mails == []
    office.wait(2 * 60, 10.0)
    assert len(office.server.mails) == 1
    begun = office.clock.seconds()
    for name in names[1:]:
        change = a_change(name, "new-version")
        office.take(change, a_match(change))
        office.wait(8 * 60, 10.0)
        if len(office.server.mails) == 2:
            break
    assert 35 * 60 <= office.server.times[1] - begun <= 36 * 60
    assert "5 datasets you fetched" in office.server.messages()[1]["Subject"]


def test_retractions_at_once_where_the_person_chose_so(offices):
    """The retraction goes at once and alone; the new version waits for its digest."""
    office = offices(quiet_minutes=60, max_delay_minutes=60)
    first = a_change("CMIP6.a.b.c.d.e.v1")
    office.take(first, a_match(first))
    office.wait(3700, 30.0)
    token = link_of(office.server.messages()[0], "preferences")
    kinds = frozenset({"retracted", "new-version", "reinstated", "erratum"})
    office.result(office.desk.choose(token, kinds, [], is_immediate=True, nothing=False))
    newest = parse_dataset("CMIP6.a.b.c.d.f.v2")
    new, gone = a_change(str(newest), "new-version", successor=newest), a_change("CMIP6.a.b.c.d.g.v1")
    office.take(new, a_match(new))
    office.take(gone, a_match(gone))
    office.wait(5)
    assert [one["Subject"] for one in office.server.messages()[1:]] == ["Retracted: CMIP6.a.b.c.d.g.v1"]
    office.wait(3700, 30.0)
    assert office.server.messages()[2]["Subject"] == "New version 2 of CMIP6.a.b.c.d.f"


def test_an_erratum_of_thousands_is_one_small_mail_with_the_whole_list(office):
    """2,747 datasets: one mail by experiment, below 100 KB, and a page that has them all."""
    names = datasets(2747)
    change = a_change(kind="erratum", datasets=names, title="Wrong <b>units</b>", severity="high")
    match = a_match(change, datasets=names[:100], dataset_count=2747, file_count=9000)
    office.take(change, match)
    for name in names[:300]:
        other = a_change(str(name))
        office.take(other, a_match(other))
    office.wait(5)
    (mail,) = office.server.mails
    assert len(mail.message) <= MAIL_BYTES
    message = office.server.messages()[0]
    assert message["Subject"] == "2747 datasets you fetched: 300 retracted, 2747 with an erratum"
    text = message.get_body(("plain",)).get_content()
    assert {f"== CMIP6 / exp{number}" for number in range(30)} <= set(text.splitlines())
    rows, pages = office.result(office.desk.full_list(link_of(message, "list"), 0))
    assert (len(rows), pages) == (500, 7)


def test_what_is_older_than_the_age_is_never_mailed(offices):
    """A late joiner reads years of events; what waits too long for a release is too old as well."""
    office = offices(max_age_days=30, hold_above=0)
    old = a_change("CMIP6.old.v1", occurred_ms=NOW_MS - 31 * DAY_S * 1000)
    assert office.take(old, a_match(old)) == 0
    young = a_change("CMIP6.young.v1")
    office.take(young, a_match(young))
    office.wait(31 * DAY_S, 3600.0)
    for who in ("ann", "bob"):
        office.result(office.desk.release(young.key.hex(), who))
    office.wait(120)
    assert office.server.mails == []
    assert office.audit("skipped") == [
        "older than what is mailed, for everybody",
        "older than what is mailed",
    ]


def test_many_recipients_wait_for_two_people(offices):
    """More than N are held; one person cannot release alone, nor who held it by hand; then all are told."""
    office = offices(hold_above=2)
    change = a_change()
    office.take(change, *(a_match(change, user) for user in ("a", "b")))
    office.wait(5)
    assert len(office.server.mails) == 2
    office.take(change, a_match(change, "c"))
    office.wait(5)
    assert len(office.server.mails) == 2
    key = change.key.hex()[:12]
    assert office.result(office.desk.release(key, "ann"))["state"] == "held"
    with pytest.raises(HoldError, match="ann asked for it already: another person"):
        office.result(office.desk.release(key, "ann"))
    assert office.result(office.desk.release(key, "bob"))["state"] == "released"
    office.wait(5)
    assert len(office.server.mails) == 3
    office.result(office.desk.hold(key, "bob"))
    with pytest.raises(HoldError, match="bob held it: another person"):
        office.result(office.desk.release(key, "bob"))
    office.result(office.desk.release(key, "ann"))
    for wrong in ("ann", "'; drop", ""):
        with pytest.raises(HoldError):
            office.result(office.desk.release(key, wrong))
    with pytest.raises(HoldError, match="8 hex digits"):
        office.result(office.desk.hold("1234", "ann"))
    with pytest.raises(HoldError, match="no users were matched"):
        office.result(office.desk.hold("12345678", "ann"))


def test_a_mail_that_is_queued_can_still_be_held_and_unsubscribed_from(office):
    """Both take effect before the next mail goes out: it is taken back, and made anew without what is not wanted."""
    office.server.refuses = True
    gone, kept = a_change("CMIP6.a.b.c.d.gone.v1"), a_change("CMIP6.a.b.c.d.kept.v1")
    office.take(gone, a_match(gone))
    office.take(kept, a_match(kept))
    office.wait(3)
    ((sealed, number),) = office.sql("SELECT sealed, number FROM mail WHERE state = 'queued'")
    assert b"site.org" not in sealed
    office.result(office.desk.hold(gone.key.hex(), "ann"))
    office.server.refuses = False
    office.wait(20)
    (message,) = office.server.messages()
    assert message["Subject"] == "Retracted: CMIP6.a.b.c.d.kept.v1"
    office.result(office.desk.unsubscribe(link_of(message, "unsubscribe")))
    office.result(office.desk.release(gone.key.hex(), "bob"))
    office.wait(20)
    assert len(office.server.mails) == 1
    assert office.audit("skipped") == ["unsubscribed"]
    assert office.sql("SELECT state FROM mail WHERE number = ?", number) == [("cancelled",)]


def test_for_now_is_tried_again_and_for_good_is_not(office):
    """451 waits, longer each time, over a restart too, and five days at most; 550 never comes again."""
    office.server.answer = lambda mail: (
        Outcome(Result.REFUSED, 550, "5.1.1 <gone@site.org>: unknown")
        if mail.recipient == "gone@site.org"
        else Outcome(Result.REFUSED, 451, "4.7.1 later")
    )
    change = a_change()
    office.take(change, a_match(change, "gone"), a_match(change, "jane"))
    office.wait(3600, 5.0)
    office.close()
    office.open()
    tries = len(office.server.times)
    assert tries >= 4
    office.wait(10)
    assert len(office.server.times) == tries
    office.wait(6 * DAY_S, 300.0)
    assert office.server.recipients.count("gone@site.org") == 1
    times = [
        at
        for at, mail in zip(office.server.times, office.server.mails, strict=True)
        if "jane" in mail.recipient
    ]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 150 <= waits[0] <= 310
    assert max(waits) <= 4 * 3600 + 60
    assert sorted(waits[:4]) == waits[:4]
    assert 4.8 * DAY_S < times[-1] - times[0] <= 5.2 * DAY_S
    assert len({mail.message for mail in office.server.mails if "jane" in mail.recipient}) == 1
    assert office.mailing.counts()["failed"] == 2
    assert "refused: 5.1.1 <address> unknown" in office.audit("attempt")


def test_an_outage_loses_nothing_and_is_said(office):
    """Ten minutes without a server: nothing is tried in vain too often, everything goes out after, the fault ends."""
    office.server.refuses = True
    change = a_change()
    office.take(change, *(a_match(change, f"user{number}") for number in range(30)))
    office.wait(600, 0.5)
    assert "the mail server mx:25 takes no mail: refused; mails wait for it" in office.mailing.fault
    assert office.mailing.counts()["queued"] == 30
    office.server.refuses = False
    office.wait(310, 0.5)
    assert sorted(office.server.recipients) == sorted(f"user{number}@site.org" for number in range(30))
    assert office.server.connections == 1
    assert office.mailing.fault == ""


@pytest.mark.parametrize("is_told", [False, True])
def test_a_mail_that_may_have_arrived(offices, tmp_path, is_told):
    """It is looked for in the mail server's log before it is sent again, with the same Message-ID."""
    log = tmp_path / "mail.log"
    log.write_text("")
    office = offices(mta_log=log)
    office.server.answer = lambda _mail: Deferred()
    change = a_change()
    office.take(change, a_match(change))
    office.wait(5)
    (mail,) = office.server.mails
    message_id = office.server.messages()[0]["Message-ID"]
    if is_told:
        log.write_text(
            f"Nov 28 mx postfix/cleanup[7]: 4Xq: message-id={message_id}\n"
            "Nov 28 mx postfix/qmgr[8]: 4Xq: from=<news@example.org>, size=1, nrcpt=1 (queue active)\n"
        )
    office.close(in_order=False)
    office.server.answer = lambda _mail: Outcome(Result.ACCEPTED, 250, "ok")
    office.open()
    office.wait(25)
    assert len(office.server.mails) == 1
    office.wait(30)
    assert len(office.server.mails) == (1 if is_told else 2)
    assert {one.message for one in office.server.mails} == {mail.message}
    office.wait(60)
    assert office.mailing.counts()["sent"] == 1


def test_a_log_that_cannot_be_read_holds_a_mail_up_for_an_hour(offices, tmp_path):
    """Then a second mail is better than none; the fault says why it waits."""
    office = offices(mta_log=tmp_path / "missing.log")
    office.server.answer = lambda _mail: Outcome(Result.UNKNOWN, 0, "ConnectionLost")
    change = a_change()
    office.take(change, a_match(change))
    office.wait(1800, 5.0)
    assert len(office.server.mails) == 1
    assert "missing.log: No such file or directory" in office.mailing.fault
    office.server.answer = lambda _mail: Outcome(Result.ACCEPTED, 250, "ok")
    office.wait(3600, 5.0)
    assert len(office.server.mails) == 2


def test_no_second_has_more_than_the_rates(offices):
    """In all and for one domain, after a start too; one slow domain does not hold up the others."""
    users = [f"u{number}" for number in range(120)]
    domains = {user: f"d{number % 3}.org" if number < 90 else "big.org" for number, user in enumerate(users)}
    office = offices(
        resolve=lambda who: succeed(
            Resolution(Finding.FOUND, f"{who.rpartition('/')[2]}@{domains[who.rpartition('/')[2]]}")
        ),
        rate_per_s=5,
        domain_rate_per_s=2,
    )
    change = a_change()
    office.take(change, *(a_match(change, user) for user in users))
    office.wait(8, 0.01)
    office.close()
    office.open()
    office.wait(45, 0.01)
    times = office.server.times
    assert len(times) == 120
    sent = [
        (at, mail.recipient.partition("@")[2]) for at, mail in zip(times, office.server.mails, strict=True)
    ]
    for at, _ in sent:
        window = [domain for time, domain in sent if at <= time < at + 1.0]
        assert len(window) <= 5
        assert max(window.count(domain) for domain in window) <= 2
    assert times[-1] < 40
    assert office.server.connections == 2


def test_a_dry_run_does_everything_but_send(offices):
    """The mail lies there to be looked at; switched on later, only what comes then is sent."""
    office = offices(dry_run=True)
    change = a_change()
    office.take(change, a_match(change))
    office.wait(5)
    assert office.mailing.counts()["dry"] == 1
    assert office.desk.status()["dry_run"] is True
    office.close()
    office.open(dry_run=False)
    office.wait(120)
    assert office.server.mails == []
    assert office.audit("queued") == ["a dry run: not sent"]


def test_links_of_a_mail_lead_to_this_node(office):
    """The headers of bulk mail, and the return path by which a failure is known."""
    from esgf_gossip.tracking.tokens import read_envelope

    change = a_change()
    office.take(change, a_match(change))
    office.wait(5)
    (mail,), (message,) = office.server.mails, office.server.messages()
    assert read_envelope(office.values, mail.sender.upper()) == mail.number
    assert read_envelope(office.values, mail.sender.replace("+b", "+b1")) is None
    assert message["List-Unsubscribe"].startswith(f"<{URL}/unsubscribe/")
    assert "<mailto:news@example.org?subject=unsubscribe%20" in message["List-Unsubscribe"]
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert (message["Auto-Submitted"], message["Precedence"]) == ("auto-generated", "bulk")
    assert message["List-Id"] == "ESGF dataset news <dataset-news.esgf-h.example.org>"
    assert NAME in message["Subject"]
