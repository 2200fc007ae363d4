"""Changes in doubt: a young claim that another contests waits for two people, an old one does not; what is void is not mailed."""

import json
from typing import ClassVar

import pytest

from esgf_gossip.tracking import contested, ledger
from esgf_gossip.tracking.changes import changes_after
from esgf_gossip.tracking.contested import YOUNG_MS
from esgf_gossip.tracking.doubts import Doubts
from esgf_gossip.tracking.event_lists import accept
from esgf_gossip.tracking.events import encode_event
from esgf_gossip.tracking.holds import CONTESTED, WITHDRAWN, HoldError
from esgf_gossip.tracking.preferences import set_immediate
from esgf_gossip.tracking.restored import RESTORED
from esgf_gossip.tracking_room import LOG_SCRIPTS
from helpers.mailing import Office, a_change, a_match
from helpers.registrars import V1, V2, V3, A, B, C, an_event

HOUR_S = 3600
MINUTE_S = 60


class Home(Office):
    """A home node that reads the logs too: its mailing waits an hour, and asks the ledger what is in doubt."""

    scripts: ClassVar = {**LOG_SCRIPTS, "contested": contested.SCRIPT}
    doubts = contested.DOUBTS

    def __init__(self, folder):
        super().__init__(folder, quiet_minutes=60, max_delay_minutes=1440)
        self.places = {}

    def hear(self, origin, *said):
        """Let an origin say of its own data node, now: (kind, version) each."""
        if origin not in self.places:
            self.places[origin] = self.database.now(ledger.begin, origin, 1, 0, {origin})
        events = [an_event(kind, version, origin, occurred_ms=self.now_ms()) for kind, version in said]
        leaves = [encode_event(event) for event in events]
        taken = self.database.now(ledger.take, self.places[origin], 1, leaves, C, self.now_ms())
        self.places[origin] = taken.place
        return [event.change_key for event in events]

    def certify(self, origin, *hosts):
        """Judge an origin by another certificate from now on; without a name it is revoked."""
        self.sql("UPDATE place SET hosts = ? WHERE origin = ?", json.dumps(hosts), origin)
        self.database.now(ledger.judge_anew, [V1.master_id], C, self.now_ms())

    def match(self, user="jane"):
        """Let a user be matched with the newest change."""
        *_, (_, change) = self.database.now(changes_after, 0, 99)
        self.take(change, a_match(change, user))
        return change.key.hex()

    def pass_by(self, seconds):
        """Let time pass, in long steps."""
        self.wait(seconds, step_s=min(seconds / 8, 10 * MINUTE_S))

    def state(self):
        """Return how the changes stand that users were matched with, and who holds them."""
        return self.sql("SELECT state, held_by FROM told ORDER BY taken_ms, change_key")

    def release(self, key, *names):
        """Let people release a change; return how it stands after each."""
        return [self.result(self.desk.release(key, name))["state"] for name in names]


@pytest.fixture
def home(tmp_path):
    """A home node without a word in any log."""
    made = Home(tmp_path)
    yield made
    made.close()


def test_a_young_claim_that_another_contests_waits_for_two_people(home):
    """Nobody is mailed; list, status and audit say why; one person is not enough, nor the same one twice."""
    home.hear(A, ("published", V1), ("retracted", V1))
    key = home.match()
    home.wait(5)
    assert home.state() == [("open", "")]
    home.hear(B, ("published", V1))
    home.pass_by(2 * MINUTE_S)
    assert home.state() == [("held", CONTESTED)]
    assert (home.desk.status()["held"], home.desk.status()["contested"]) == (1, 1)
    (listed,) = home.result(home.desk.changes(9))
    assert (listed["state"], listed["held_by"]) == ("held", CONTESTED)
    assert home.audit("held") == [CONTESTED]
    home.pass_by(2 * HOUR_S)
    assert home.server.recipients == []
    assert home.release(key, "ann") == ["held"]
    with pytest.raises(HoldError, match="another person"):
        home.release(key, "ann")
    with pytest.raises(HoldError, match="name of a user"):
        home.release(key, CONTESTED)
    assert home.release(key, "bob") == ["released"]
    home.match("joe")
    home.pass_by(2 * HOUR_S)
    assert sorted(home.server.recipients) == ["jane@site.org", "joe@site.org"]
    assert home.desk.status()["contested"] == 0


@pytest.mark.parametrize("is_contested", [True, False])
def test_who_held_it_for_a_day_is_not_delayed(home, is_contested):
    """No member silences a retraction by claiming too, whether before it or after; nor is one held that nobody contests."""
    home.hear(A, ("published", V1))
    if is_contested:
        home.hear(B, ("published", V1))
    home.pass_by(YOUNG_MS / 1000)
    home.hear(A, ("retracted", V1))
    home.match()
    if is_contested:
        home.hear(C, ("published", V1))
    home.pass_by(2 * HOUR_S)
    assert home.server.recipients == ["jane@site.org"]


def test_a_young_claim_without_a_contest_is_mailed(home):
    """As of data from before tracking, whose holder names and retracts it at once."""
    home.hear(A, ("published", V1), ("retracted", V1))
    home.match()
    home.pass_by(2 * HOUR_S)
    assert (home.server.recipients, home.audit("held")) == (["jane@site.org"], [])


def test_a_contest_stops_what_is_in_the_outbox(home):
    """The mail is taken back; it is made anew when people have released it."""
    home.hear(A, ("published", V1), ("retracted", V1))
    home.server.refuses = True
    key = home.match()
    home.pass_by(2 * HOUR_S)
    assert home.sql("SELECT state FROM mail") == [("queued",)]
    home.hear(B, ("published", V1))
    home.server.refuses = False
    home.pass_by(HOUR_S)
    assert home.server.recipients == []
    assert home.sql("SELECT state FROM mail") == [("cancelled",)]
    assert home.state() == [("held", CONTESTED)]
    home.release(key, "ann", "bob")
    home.pass_by(2 * HOUR_S)
    assert home.server.recipients == ["jane@site.org"]


def test_the_sender_asks_itself(home):
    """Between two looks of the digests too nothing goes out that is contested."""
    home.hear(A, ("published", V1), ("retracted", V1))
    home.server.refuses = True
    home.match()
    home.pass_by(2 * HOUR_S)
    home.hear(B, ("published", V1))
    ((number,),) = home.sql("SELECT number FROM mail")
    assert not home.database.now(home.mailing._digests.still_wanted, number, home.now_ms())
    assert home.state() == [("held", CONTESTED)]


def test_immediate_notice_waits_where_the_contest_is_known(home):
    """Who wants retractions at once gets none of a doubtful claim; of another he does."""
    sure = a_change("CMIP6.a.b.v1", kind="erratum")
    home.take(sure, a_match(sure))
    home.wait(2)
    ((person,),) = home.sql("SELECT DISTINCT person FROM notice")
    home.database.now(set_immediate, person, home.now_ms(), is_immediate=True)
    home.hear(A, ("published", V1), ("retracted", V1), ("published", V2))
    home.hear(B, ("published", V1))
    home.match()
    home.wait(5)
    assert home.server.recipients == []
    assert ("held", CONTESTED) in home.state()
    home.hear(A, ("retracted", V2))
    home.match()
    home.wait(5)
    assert home.server.recipients == ["jane@site.org"]


@pytest.mark.parametrize("version", [V1, V2])
def test_a_new_version_of_what_another_claims_waits_too(home, version):
    """Whether the true holder claims the version said to be new or the one it replaces, which counts beside it."""
    home.hear(A, ("new-version", V2))
    home.match()
    home.hear(B, ("published", version))
    home.pass_by(2 * HOUR_S)
    assert (home.server.recipients, home.state()) == ([], [("held", CONTESTED)])


def test_a_new_version_of_who_has_the_originals_for_long_is_not_delayed(home):
    """It is its own claim, and as young as can be: what counts is since when its author has originals of the dataset."""
    home.hear(A, ("published", V1))
    home.pass_by(YOUNG_MS / 1000)
    home.hear(A, ("new-version", V2))
    home.match()
    home.hear(B, ("published", V2), ("new-version", V3))
    home.pass_by(2 * HOUR_S)
    assert home.server.recipients == ["jane@site.org"]


def test_what_stops_to_count_is_not_mailed(home):
    """Its author was revoked before the mail was due: nobody can release it; when it counts again it goes out."""
    home.hear(A, ("published", V1), ("retracted", V1))
    key = home.match()
    home.certify(A)
    home.pass_by(2 * HOUR_S)
    assert (home.server.recipients, home.state()) == ([], [("held", WITHDRAWN)])
    with pytest.raises(HoldError, match="does not count any more on this node"):
        home.release(key, "ann")
    assert home.desk.status()["contested"] == 0
    home.certify(A, A)
    home.pass_by(2 * HOUR_S)
    assert home.server.recipients == ["jane@site.org"]
    assert home.audit("released") == ["it counts again"]


def test_what_is_swept_away_is_not_mailed(home):
    """The log of a member that is gone is taken away, and its word with it."""
    home.hear(A, ("published", V1), ("retracted", V1))
    home.match()
    place = home.database.now(ledger.begin, A, 2, 0, (), is_gone=True)
    home.database.now(ledger.sweep, place, C, home.now_ms())
    home.pass_by(2 * HOUR_S)
    assert (home.server.recipients, home.state()) == ([], [("held", WITHDRAWN)])


def test_a_contested_change_of_a_revoked_member_is_no_alarm_any_more(home):
    """It is over; should its author come back it waits for people as before."""
    home.hear(A, ("published", V1), ("retracted", V1))
    key = home.match()
    home.hear(B, ("published", V1))
    home.pass_by(2 * MINUTE_S)
    home.certify(A)
    home.pass_by(2 * MINUTE_S)
    assert (home.state(), home.desk.status()["contested"]) == ([("held", WITHDRAWN)], 0)
    home.certify(A, A)
    home.pass_by(2 * HOUR_S)
    assert (home.state(), home.server.recipients) == ([("held", CONTESTED)], [])
    assert home.release(key, "ann", "bob") == ["held", "released"]
    home.certify(A)
    home.pass_by(2 * HOUR_S)
    assert home.state() == [("held", WITHDRAWN)]


def test_what_an_operator_accepts(home):
    """Of the claim that is contested: what its author says counts and is mailed. Of the other: what was held stays held."""
    home.hear(B, ("published", V1))
    claim, _ = home.hear(A, ("published", V1), ("retracted", V1))
    home.database.now(accept, claim.hex(), C, home.now_ms())
    home.match()
    home.pass_by(2 * HOUR_S)
    assert home.server.recipients == ["jane@site.org"]
    home.hear(A, ("published", V2), ("retracted", V2))
    home.match()
    (contest,) = home.hear(B, ("published", V2))
    home.pass_by(2 * MINUTE_S)
    home.database.now(accept, contest.hex(), C, home.now_ms())
    home.pass_by(2 * HOUR_S)
    assert home.server.recipients == ["jane@site.org"]
    assert home.state()[1] == ("held", CONTESTED)


def test_one_whose_word_is_sure_is_enough(home):
    """Two say the same, one of them with the word of this node's operator."""
    home.hear(A, ("published", V1))
    (claim,) = home.hear(B, ("published", V1))
    home.database.now(accept, claim.hex(), C, home.now_ms())
    home.hear(A, ("retracted", V1))
    home.hear(B, ("retracted", V1))
    home.match()
    home.pass_by(2 * HOUR_S)
    assert home.server.recipients == ["jane@site.org"]


@pytest.mark.parametrize("held_by", ["", RESTORED])
def test_a_contest_is_above_another_hold(home, held_by):
    """One voice for the release of what was held for another reason is not enough then."""
    home.hear(A, ("published", V1), ("retracted", V1))
    key = home.match()
    home.sql("UPDATE told SET state = 'held', held_by = ?, asked_by = 'ann'", held_by)
    home.hear(B, ("published", V1))
    home.pass_by(2 * MINUTE_S)
    assert home.release(key, "bob", "ann") == ["held", "released"]


def test_what_a_person_holds_stays_that_persons(home):
    """A contest takes nothing from a hold by hand: somebody else releases."""
    home.hear(A, ("published", V1), ("retracted", V1))
    key = home.match()
    home.result(home.desk.hold(key, "ann"))
    home.hear(B, ("published", V1))
    home.pass_by(2 * MINUTE_S)
    assert home.state() == [("held", "ann")]


def test_errata_and_quorums_are_nobodys_claim(home):
    """They do not hang on who has the original: a contest between two others does not touch them."""
    for origin in (A, B):
        home.hear(origin, ("replicated", V1))
    for origin in (A, B):
        home.hear(origin, ("retracted", V1))
    home.match()
    erratum = a_change(str(V2), kind="erratum")
    home.take(erratum, a_match(erratum))
    home.hear(C, ("published", V2))
    home.hear(A, ("published", V2))
    home.pass_by(2 * HOUR_S)
    assert home.server.recipients == ["jane@site.org"]
    assert len(home.audit("queued")) == 2


def test_a_database_from_before_gets_the_index(tmp_path):
    """What is in its outbox is asked about from its next start on."""

    class Before(Home):
        scripts: ClassVar = LOG_SCRIPTS
        doubts = Doubts()

    old = Before(tmp_path)
    old.hear(A, ("published", V1), ("retracted", V1))
    old.match()
    old.hear(B, ("published", V1))
    old.pass_by(MINUTE_S)
    assert old.state() == [("open", "")]
    old.close()
    new = Home(tmp_path)
    new.pass_by(MINUTE_S)
    assert new.state() == [("held", CONTESTED)]
    new.close()


def test_the_question_of_each_mail_goes_by_indexes(home):
    """However long the log is."""
    asked = []
    home.database._connection.set_trace_callback(asked.append)
    home.hear(A, ("published", V1), ("retracted", V1))
    change = home.database.now(changes_after, 0, 9)[0][1]
    home.database.now(contested.doubt, change)
    home.database.now(contested.review, home.now_ms())
    home.database._connection.set_trace_callback(None)
    queries = [
        text for text in asked if text.startswith("SELECT") and "event" in text and "numbered" not in text
    ]
    plans = [str(row[3]) for text in queries for row in home.sql(f"EXPLAIN QUERY PLAN {text}")]
    assert [plan for plan in plans if plan.startswith("SCAN event") and "event_contested" not in plan] == []
    assert any("event_contested" in plan for plan in plans)
