"""Mailing over time: what is exported, erased and forgotten; previews; faults of a mail and of the disk."""

import json
import re
import sqlite3

import attrs
import pytest
from twisted.internet.defer import succeed

from esgf_gossip.tracking import outbox
from esgf_gossip.tracking.database import TrackingError
from esgf_gossip.tracking.holds import HoldError
from esgf_gossip.tracking.matches import FetchedFile
from esgf_gossip.tracking.persons import check_key
from esgf_gossip.tracking.resolution import Finding, Resolution
from esgf_gossip.trust.sealed_values import SealedValues
from helpers.mailing import DAY_S, NOW_MS, URL, Office, a_change, a_match, datasets, openid


def test_preview_is_the_mail_and_sends_none(offices):
    """To somebody made up, or as a person would get it, while it is held."""
    office = offices(hold_above=0)
    office.issues = [("Wrong units", "high", "https://errata.example.org/1")]
    change = a_change(kind="new-version", successor=None, supersedes=("20180101",), reason="better")
    office.take(change, a_match(change, files=["mine.nc"]))
    office.wait(5)
    made_up = office.result(office.desk.preview(change.key.hex()[:8], ""))
    mine = office.result(office.desk.preview(change.key.hex()[:8], "Jane@Site.org"))
    also_mine = office.result(office.desk.preview(change.key.hex()[:8], openid("jane")))
    assert (made_up["state"], made_up["recipients"], made_up["made_up"]) == ("held", 1, True)
    assert "v20180101" in made_up["text"]
    assert "made-up-file.nc" in made_up["text"]
    assert mine["text"] == also_mine["text"]
    assert "mine.nc" in mine["html"]
    assert "Wrong units (severity: high)" in mine["text"]
    assert office.server.mails == []
    # But for links that are the receiver's own it is the mail.
    assert "No more about CMIP6.CMIP.NCAR.CESM2.historical.r1i1p1f1.Amon.tas.gn:" in mine["text"]
    with pytest.raises(HoldError, match="nobody of that address"):
        office.result(office.desk.preview(change.key.hex(), "bob@site.org"))


@pytest.mark.parametrize("count", [1, 300])
def test_a_preview_to_somebody_is_the_mail_but_for_its_links(office, count):
    """Also where there is so much that a mail shows less of it; no link of a preview does anything."""
    several = datasets(count)
    change = a_change(datasets=several)
    files = tuple(
        FetchedFile(one, f"{'x' * 60}-{number}.nc", "dn1.example.org", NOW_MS)
        for one in several
        for number in range(30)
    )
    match = a_match(change, dataset_count=count, file_count=len(files))
    office.take(change, attrs.evolve(match, files=files, datasets=several))
    office.wait(5)
    seen = office.result(office.desk.preview(change.key.hex(), "jane@site.org"))
    for kind, part in (("plain", "text"), ("html", "html")):
        sent = office.server.messages()[0].get_body((kind,)).get_content()
        inert, links = re.subn(rf"{URL}/\w+/[\w.~-]+", f"{URL}/(a link of the receiver)", sent)
        assert links >= 3
        assert inert.splitlines() == seen[part].splitlines()
    assert office.server.messages()[0]["subject"] == seen["subject"]


def test_everything_of_a_person_is_exported_and_erased(office, everything_said):
    """After it nothing in the file leads to the person, and what had happened before is never mailed; the future is."""
    change, other = a_change(), a_change("CMIP6.x.v1", "new-version")
    for one in (change, other):
        office.take(one, a_match(one, "jane", ["secret-file.nc"]), a_match(one, "bob"))
    office.wait(5)
    told = office.result(office.desk.export("JANE@site.org"))
    assert told == office.result(office.desk.export(openid("jane")))
    assert (told["address"], told["openids"]) == ("jane@site.org", [openid("jane")])
    assert [one["kind"] for one in told["matches"]] == ["retracted", "new-version"]
    assert told["matches"][0]["match"]["files"][0][1] == "secret-file.nc"
    assert [one["state"] for one in told["mails"]] == ["sent"]
    assert {one["step"] for one in told["audit"]} >= {"notice", "queued", "attempt", "sent"}
    json.dumps(told)
    counts = office.result(office.desk.erase(openid("jane")))
    assert (counts["matches"], counts["notices"], counts["mails"], counts["addresses"]) == (2, 2, 1, 1)
    assert counts["audit_lines"] == len(told["audit"])
    empty = office.result(office.desk.export("jane@site.org"))
    assert (empty["address"], empty["openids"], empty["matches"], empty["mails"], empty["audit"]) == (
        "",
        [],
        [],
        [],
        [],
    )
    sent = len(office.server.mails)
    office.take(change, a_match(change, "jane"), a_match(change, "jane-2"))
    office.wait(5)
    assert len(office.server.mails) == sent
    later = a_change("CMIP6.later.v1", occurred_ms=office.now_ms() + 1000)
    office.take(later, a_match(later, "jane"))
    office.wait(5)
    assert office.server.recipients[sent:] == ["jane@site.org"]
    content = (office.folder / "tracking.db").read_bytes() + (office.folder / "tracking.db-wal").read_bytes()
    assert b"site.org" not in content
    assert b"openid/jane" not in content
    assert "site.org" not in everything_said()


def test_an_erasure_finds_every_spelling_of_an_openid(offices):
    """As another node's log spells it, and while nobody knows the address: nothing is mailed later."""
    answers = [Resolution(Finding.UNANSWERED)]
    office = offices(resolve=lambda one: succeed(answers[0]))
    change = a_change()
    office.take(change, a_match(change, openid=openid("jane").replace("esgf-h", "ESGF-H") + "/"))
    office.wait(5)
    erased = office.result(office.desk.erase(openid("jane")))
    assert erased["matches"] == 1
    answers[0] = Resolution(Finding.FOUND, "jane@site.org")
    office.take(change, a_match(change))
    office.wait(7200, step_s=10)
    assert office.server.recipients == []


def test_what_is_old_is_forgotten_and_addresses_first(offices):
    """Addresses go after their days, everything of a change when it can no longer be mailed, the audit last."""
    office = offices(address_days=7, max_age_days=30, keep_days=100)
    change = a_change()
    office.take(change, a_match(change))
    office.wait(6 * DAY_S, 10800.0)
    assert office.sql("SELECT count(*) FROM person WHERE address IS NOT NULL") == [(1,)]
    office.wait(2 * DAY_S, 10800.0)
    assert office.sql("SELECT count(*) FROM person WHERE address IS NOT NULL") == [(0,)]
    office.wait(84 * DAY_S, 10800.0)
    tables = ("notice", "arrival", "told", "mail", "identity", "person")
    assert [office.sql(f"SELECT count(*) FROM {one}") for one in tables] == [[(0,)]] * len(tables)
    assert office.audit("sent") == [""]
    office.wait(10 * DAY_S, 10800.0)
    assert office.audit("sent") == []
    assert office.audit("forgotten") != []


def test_addresses_that_were_kept_for_long_enough_go_within_the_hour(office):
    """Also those of users whom nobody asks for again."""
    office.sql("INSERT INTO address VALUES (x'01', 'found', x'00', 1, 'saml', '', ?)", office.now_ms() + 1000)
    office.wait(3700, step_s=30)
    assert office.sql("SELECT * FROM address") == []


def test_a_fault_with_one_mail_keeps_no_other_from_going_out(office, monkeypatch):
    """It is said, and names nobody."""
    render = office.mailing.text.render

    def wrong(items, successors, address, *rest):
        if address == "jane@site.org":
            raise ValueError(address)
        return render(items, successors, address, *rest)

    monkeypatch.setattr(office.mailing.text, "render", wrong)
    change = a_change()
    office.take(change, a_match(change, "jane"), a_match(change, "bob"))
    office.wait(120)
    assert office.server.recipients == ["bob@site.org"]
    assert "the mails of 1 persons could not be made" in office.mailing.fault
    monkeypatch.undo()
    office.close()
    office.open()
    office.wait(5)
    assert office.server.recipients == ["bob@site.org", "jane@site.org"]


def test_a_mail_that_cannot_be_read_stops_no_other(office):
    """It has failed, with its reason; the one before it is sent once, and the one after it too."""
    office.server.refuses = True
    change = a_change()
    office.take(change, *(a_match(change, user) for user in ("ann", "bob", "cy")))
    office.wait(5)
    ((bad,),) = office.sql("SELECT number FROM mail ORDER BY due_ms, number LIMIT 1 OFFSET 1")
    office.sql("UPDATE mail SET sealed = x'00' WHERE number = ?", bad)
    office.server.refuses = False
    office.wait(900)
    assert len(office.server.recipients) == len(set(office.server.recipients)) == 2
    assert office.sql("SELECT number FROM mail WHERE state = 'failed'") == [(bad,)]
    assert (office.audit("failed"), office.mailing.fault) == (["cannot be read: TrustError"], "")


def test_a_disk_that_says_no_loses_no_outcome(office, monkeypatch):
    """The answer of the server is kept until it is on disk; nothing is sent twice."""
    settle = outbox.settle
    failures = iter([True, True])

    def full(*arguments):
        if next(failures, False):
            raise sqlite3.OperationalError("database or disk is full")
        return settle(*arguments)

    monkeypatch.setattr(outbox, "settle", full)
    change = a_change()
    office.take(change, a_match(change))
    office.wait(3)
    assert "disk is full" in office.mailing.fault
    office.wait(60)
    assert len(office.server.mails) == 1
    assert (office.mailing.counts()["sent"], office.mailing.fault) == (1, "")


def test_another_key_is_refused_before_anything_is_lost(office):
    """Restored without its key: one line that says what to do, and the file stays as it was."""
    change = a_change()
    office.take(change, a_match(change))
    office.values = SealedValues(office.folder / "other.key")
    with pytest.raises(TrackingError, match=r"tracking\.key is not the key that"):
        office.database.now(check_key, office.values)
    office.wait(5)
    assert office.server.recipients == ["jane@site.org"]


def test_a_fault_of_the_sender_is_said_and_it_goes_on(office, monkeypatch, everything_said):
    """It names nobody; the mail goes out when the fault is over."""

    def wrong(*_arguments):
        raise ValueError("jane@site.org")

    monkeypatch.setattr(outbox, "claim", wrong)
    change = a_change()
    office.take(change, a_match(change))
    office.wait(5)
    assert "the sender of mails failed: ValueError" in office.mailing.fault
    monkeypatch.undo()
    office.wait(120)
    assert office.server.recipients == ["jane@site.org"]
    assert office.mailing.fault == ""
    assert "jane@site.org" not in everything_said()


def test_a_sender_leaves_room_for_the_return_path(tmp_path):
    """A local part that could become too long is refused at the start, with the key's name."""
    with pytest.raises(ValueError, match=r"tracking\.sender: at most 30 characters"):
        Office(tmp_path, sender="x" * 31 + "@example.org")
