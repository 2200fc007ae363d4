"""Issues of an errata service on loopback: users are told of each once, of what it grew by again, and every issue is a reason."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.server import NOT_DONE_YET

from esgf_gossip.sources import errata_service
from esgf_gossip.sources.errata_service import ErrataService, IssueNotGivenError
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.storage.journal_thread import AtOnce
from esgf_gossip.tracking import changes, errata_store
from esgf_gossip.tracking.changes import changes_after
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.errata import ErrataError, read_erratum
from esgf_gossip.tracking.errata_poll import EVERY_S, ErrataPoll
from esgf_gossip.tracking.errata_store import ISSUES_EACH, issues_of, known_marks, reasons_of
from esgf_gossip.tracking.events import ERRATUM, change_key
from esgf_gossip.tracking.identity import parse_dataset
from helpers.errata_stub import UID, ErrataStub, an_issue, answers, says_nothing
from helpers.own_reactor import own_reactor
from helpers.service_stubs import Stub, self_signed

DAY_MS = 24 * 60 * 60 * 1000
MAX_AGE_MS = 30 * DAY_MS
# Noon of the day on which the issues of the stub were written.
NOON_MS = 1_782_907_200_000
NAME = "CMIP6.CMIP.IPSL.IPSL-CM6A-LR.1pctCO2.r1i1p1f1.3hr.v1.gr#20180605"


@pytest.fixture
def reactor():
    """A reactor of the test's own."""
    with own_reactor() as found:
        yield found


class Node:
    """A node that asks a stub of the service, at times a test chooses."""

    def __init__(self, reactor, path):
        self.reactor = reactor
        self.stub = ErrataStub(reactor)
        scripts = {"changes": changes.SCRIPT, "errata": errata_store.SCRIPT}
        self.database = TrackingDatabase(path / "tracking.db", scripts, AtOnce())
        self.now_ms = NOON_MS
        self.numbers = []
        self.service = ErrataService(self.stub.url, reactor)
        self.poll = ErrataPoll(
            self.service, self.database, self.numbers.append, reactor, lambda: self.now_ms, MAX_AGE_MS
        )

    def look(self, days=0):
        """Look through the service some days later; return the changes that came of it."""
        self.now_ms += int(days * DAY_MS)
        before = len(self.numbers)
        self.reactor.wait(self.poll._round())
        found = [change for _, change in self.database.now(changes_after, 0, 1000)]
        assert len(found) == len(self.numbers)
        return found[before:]

    def reasons(self, *names):
        """Return the titles of the issues of some datasets."""
        found = self.database.now(issues_of, [parse_dataset(name) for name in names])
        return [[issue.title for issue in found.get(parse_dataset(name), ())] for name in names]


@pytest.fixture
def node(reactor, tmp_path):
    """A node and a service that has no issues yet."""
    found = Node(reactor, tmp_path)
    yield found
    found.database.close()


def test_an_issue_of_2747_datasets_is_one_change_with_all_of_them(node):
    """The largest that is known; in whatever spelling, each once."""
    names = [f"CMIP6.CMIP.IPSL.IPSL-CM6A-LR.1pctCO2.r1i1p1f1.3hr.var{n}.gr" for n in range(2747)]
    spellings = ["{}#20180605", "{}.v20180605", "{}#v20180605", "{}.v20180605|data.example.org"]
    written = [spellings[place % 4].format(name) for place, name in enumerate(names)]
    node.stub.put(an_issue(datasets=[*written, *written[:5], "no version", None, 17]))
    (change,) = node.look()
    assert (change.kind, change.key) == (ERRATUM, change_key(ERRATUM, UID, 0))
    assert {str(one) for one in change.datasets} == {f"{name}.v20180605" for name in names}
    assert len(change.datasets) == 2747
    assert (change.title, change.severity) == ("Wrong units of clt", "high")
    assert change.link == f"{node.stub.url}/static/view.html?uid={UID}"
    assert change.occurred_ms == NOON_MS - 2 * 60 * 60 * 1000 + 123
    assert change.origin == ""
    assert node.reasons(*written) == [["Wrong units of clt"]] * 2747


def test_an_issue_is_told_once(node):
    """However often it is read; a title or a status that changed is noted."""
    node.stub.put(an_issue())
    assert len(node.look()) == 1
    node.stub.put(an_issue(status="resolved", updatedDate="2026-07-02 10:00:00"))
    assert node.look(1) == []
    assert node.look(1) == []
    found = node.database.now(issues_of, [parse_dataset(NAME)])
    assert found[parse_dataset(NAME)][0].status == "resolved"


def test_what_an_issue_grew_by_is_a_change_of_its_own(node):
    """Who was told is not told again; a dataset that goes and comes back is no news."""
    node.stub.put(an_issue(datasets=["A.b#1", "A.c#1"]))
    node.look()
    node.stub.put(an_issue(datasets=["A.c#1", "A.d#1", "A.e#1"]))
    (change,) = node.look(1)
    assert change.key == change_key(ERRATUM, UID, 1)
    assert [str(one) for one in change.datasets] == ["A.d.v1", "A.e.v1"]
    assert node.reasons("A.b#1", "A.c#1") == [[], ["Wrong units of clt"]]
    node.stub.put(an_issue(datasets=["A.b#1", "A.c#1", "A.d#1", "A.e#1"]))
    assert node.look(1) == []
    assert node.reasons("A.b#1") == [["Wrong units of clt"]]


@pytest.mark.parametrize(
    ("changed", "is_told", "is_reason"),
    [
        ({"severity": "critical"}, True, True),
        ({"severity": "medium"}, False, True),
        ({"severity": "low"}, False, True),
        ({"moderationStatus": "not-required"}, True, True),
        ({"moderationStatus": "in-review"}, False, False),
        ({"moderationStatus": "rejected"}, False, False),
        ({"status": "wontfix"}, True, True),
    ],
)
def test_users_are_told_of_what_is_grave_and_public(node, changed, is_told, is_reason):
    """A lesser issue is a reason and no news; what moderators have not accepted is neither."""
    node.stub.put(an_issue(**changed))
    assert len(node.look()) == is_told
    assert bool(node.reasons(NAME)[0]) == is_reason


def test_an_issue_that_becomes_grave_is_told_then(node):
    """With all its datasets."""
    node.stub.put(an_issue(severity="low"))
    assert node.look() == []
    node.stub.put(an_issue(severity="critical", updatedDate="2026-07-03 00:00:00"))
    (change,) = node.look(2)
    assert (change.severity, len(change.datasets)) == ("critical", 1)


def test_what_is_withdrawn_is_no_reason_any_more(node):
    """Rejected after all, or gone."""
    node.stub.put(an_issue())
    node.look()
    node.stub.put(an_issue(moderationStatus="rejected"))
    assert node.look(1) == []
    assert node.reasons(NAME) == [[]]


def test_the_first_look_tells_nobody_of_old_issues(node):
    """They are reasons at once; their growth later is news, an update of them is not."""
    old = {"createdDate": "2019-01-01 10:00:00", "updatedDate": "2026-07-01 09:00:00"}
    node.stub.put(an_issue(**old), an_issue(2))
    (change,) = node.look()
    assert change.key == change_key(ERRATUM, f"{UID[:-4]}0002", 0)
    assert node.reasons(NAME) == [["Wrong units of clt"]]
    assert node.look(1) == []
    node.stub.put(an_issue(**{**old, "datasets": [NAME, "A.b#1"], "updatedDate": "2026-07-03 09:00:00"}))
    (change,) = node.look(1)
    assert [str(one) for one in change.datasets] == ["A.b.v1"]


def test_an_issue_that_waited_long_for_its_moderators_is_news(node):
    """It was not there at the last look, whatever its date."""
    node.look()
    node.stub.put(an_issue(createdDate="2026-01-01 00:00:00"))
    (change,) = node.look(1)
    assert NOON_MS <= change.occurred_ms <= node.now_ms


def test_after_a_long_absence_dates_count_again(node):
    """A node that was off for a year mails nobody about that year."""
    node.look()
    node.stub.put(an_issue())
    assert node.look(365) == []
    assert node.reasons(NAME) == [["Wrong units of clt"]]


def test_only_what_changed_is_asked_for(node):
    """Lists are short, issues long; one that was dated yesterday may have changed once more."""
    node.stub.put(an_issue(), an_issue(2, createdDate="2020-01-01 00:00:00"))
    uids = [UID, f"{UID[:-4]}0002"]
    node.look()
    assert node.stub.retrieved == uids
    node.look(1)
    assert node.stub.retrieved == uids[:1]
    node.look(2)
    assert node.stub.retrieved == uids[:1]
    node.look(1)
    assert node.stub.retrieved == []
    node.stub.put(an_issue(2, createdDate="2020-01-01 00:00:00", severity="critical"))
    node.look(1)
    assert node.stub.retrieved == uids[1:]


@pytest.mark.parametrize(
    "way",
    [
        answers(500, b"{}"),
        answers(200, b"no JSON"),
        answers(200, b"[" * 100_000),
        answers(200, b'{"issue": null}'),
        answers(200, json.dumps({"issue": an_issue(3)}).encode()),
        answers(302, location="http://127.0.0.1:1/"),
    ],
)
def test_one_issue_that_cannot_be_read_holds_up_none(node, log, way):
    """It is counted, and asked for again with the next look."""
    node.stub.put(an_issue(), an_issue(2))
    node.stub.ways[UID] = way
    assert [change.key for change in node.look()] == [change_key(ERRATUM, f"{UID[:-4]}0002", 0)]
    assert (node.poll.known, node.poll.refused) == (2, 1)
    node.stub.ways.clear()
    assert len(node.look(1)) == 1
    assert node.poll.refused == 0


def test_an_answer_has_bounds(node, monkeypatch):
    """In size, with or without a length that is said; in time; and no redirect is followed."""
    monkeypatch.setattr(errata_service, "ISSUE_BYTES", 1000)
    monkeypatch.setattr(errata_service, "ANSWER_S", 0.2)

    def in_chunks(request):
        request.write(b" " * 2000)
        return NOT_DONE_YET

    def cut_off(request):
        request.setHeader("content-length", "500")
        request.write(b"x")
        request.transport.loseConnection()
        return NOT_DONE_YET

    for way, kind, reason in (
        (answers(200, b" " * 1001), IssueNotGivenError, "more than 1000 bytes"),
        (in_chunks, IssueNotGivenError, "more than 1000 bytes"),
        (says_nothing, SourceError, "cannot be asked"),
        (cut_off, SourceError, "broke off"),
        (answers(301, location="http://127.0.0.1:1/x"), IssueNotGivenError, "no redirect is followed"),
    ):
        node.stub.ways[UID] = way
        with pytest.raises(kind, match=reason) as caught:
            node.reactor.wait(node.service.issue(UID))
        assert "\n" not in str(caught.value)
    node.stub.ways["/2/search/errata"] = answers(200, b'{"results": {}}')
    with pytest.raises(IssueNotGivenError, match="no list"):
        node.reactor.wait(node.service.listed("high"))


def test_a_service_that_nobody_vouches_for_is_not_asked(node, tmp_path):
    """Over TLS its certificate must be of an authority that the system trusts, and nothing is sent before."""
    stub = Stub("127.0.0.1", 0, self_signed(tmp_path / "service.pem"))
    try:
        service = ErrataService(f"https://127.0.0.1:{stub.port}", node.reactor)
        with pytest.raises(SourceError, match="cannot be asked"):
            node.reactor.wait(service.listed("high"))
        assert stub.seen == []
    finally:
        stub.close()


def test_a_service_that_is_away_is_shown_and_asked_again(node):
    """Reasons that are known are there meanwhile; nothing counts as looked through."""
    node.stub.put(an_issue())
    node.stub.ways["/2/search/errata"] = answers(503)
    node.poll.start()
    node.reactor.turn_until(lambda: node.poll.fault, "the fault is shown")
    assert "status 503" in node.poll.fault
    assert node.database.now(errata_store.last_look_ms) is None
    node.stub.ways.clear()
    node.poll._rounds.wake()
    node.reactor.turn_until(lambda: node.numbers, "it is asked again")
    node.reactor.turn_until(lambda: not node.poll.fault, "the fault is over")
    node.poll.stop()
    node.poll.stop()
    nobody = ErrataService("http://127.0.0.1:1", node.reactor)
    with pytest.raises(SourceError, match=r"\[tracking\] errata: http://127\.0\.0\.1:1 cannot be asked"):
        node.reactor.wait(nobody.listed("high"))


def test_a_stop_leaves_the_question_under_way(node):
    """What hangs at the service does not hang a shutdown."""
    node.stub.ways["/2/search/errata"] = says_nothing
    node.poll.start()
    node.reactor.turn_until(lambda: node.stub.asked, "it is asked")
    node.poll.stop()
    assert node.numbers == []
    assert EVERY_S > 0


def test_reasons_come_worst_first_and_are_bounded(node):
    """A dataset with many issues does not fill a mail."""
    node.stub.put(
        *(
            an_issue(
                number, title=f"t{number:02d}", severity=("low", "critical")[number % 2], datasets=[NAME]
            )
            for number in range(1, 31)
        )
    )
    node.look()
    (titles,) = node.reasons(NAME)
    assert titles == [f"t{number:02d}" for number in range(1, 30, 2)][:ISSUES_EACH]
    assert node.database.now(issues_of, []) == {}
    node.stub.put(an_issue(40, title="other", severity="critical", datasets=[NAME, "A.b#1"]))
    node.look()
    reasons = node.database.now(
        reasons_of, [parse_dataset("A.b#1"), parse_dataset(NAME), parse_dataset("A.c#1")]
    )
    assert len(reasons) == ISSUES_EACH
    assert reasons[0] == ("other", "critical", f"{node.stub.url}/static/view.html?uid={UID[:-4]}0040")
    assert len(node.database.now(known_marks)) == 31


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ([], "no issue"),
        ({"issue": 1}, "no issue"),
        ({"issue": an_issue(uid="../../x")}, "no uid"),
        ({"issue": an_issue(severity="grave")}, "severity is none of"),
        ({"issue": an_issue(title=" ")}, "has no title"),
        ({"issue": an_issue(datasets="A.b#1")}, "datasets is no list"),
    ],
)
def test_what_is_no_issue_is_one_line(answer, reason):
    """What is wrong is said."""
    with pytest.raises(ErrataError, match=reason):
        read_erratum(answer, "https://errata.example.org")


def test_an_issue_is_read_in_both_spellings_of_its_fields():
    """The service writes camel case, its exports do not; a title is one line."""
    body = an_issue(title="Two\r\nlines\x1b[31m")
    body["created_date"] = body.pop("createdDate")
    body["moderation_status"] = body.pop("moderationStatus")
    body["updated_date"] = "2026-07-02T00:00:00+02:00"
    del body["updatedDate"]
    found = read_erratum(body, "https://errata.example.org")
    assert found.issue.title == "Two lines [31m"
    assert found.is_told
    assert found.created_ms == NOON_MS - 2 * 60 * 60 * 1000 + 123
    assert found.updated_ms == int(dt.datetime(2026, 7, 1, 22, tzinfo=dt.UTC).timestamp() * 1000)


@given(
    st.sampled_from(sorted(an_issue())),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ),
)
def test_any_value_anywhere_gives_an_issue_or_an_errata_error(field, value):
    """Never another exception, nor a line break in a title."""
    for answer in (value, {"issue": value}, {"issue": an_issue(**{field: value})}):
        try:
            found = read_erratum(answer, "https://errata.example.org")
        except ErrataError:
            continue
        assert found.issue.title.isprintable()
        assert found.created_ms >= 0
