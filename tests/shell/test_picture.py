"""When the view, the documents and the log follow the registry, in virtual time: web.picture."""

import re

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogPublisher, globalLogPublisher

from esgf_gossip.core import effects as fx
from esgf_gossip.core import log_effects as lx
from esgf_gossip.core.model import RewriteEvidence, SignedDigest
from esgf_gossip.net.sparing import LINES_A_WINDOW, WINDOW_S
from esgf_gossip.storage.database import FILE_NAME, Database
from esgf_gossip.storage.list_files import ListFiles
from esgf_gossip.storage.outputs import RegistrationFile
from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.views.lists_xml import USUAL
from esgf_gossip.web.picture import (
    DIAL_NEWS_EVERY,
    READY_AFTER_S,
    REDRAW_AFTER_S,
    REDRAW_EVERY_S,
    REDRAW_LATEST_S,
    REDRAW_UNREADY_S,
    Picture,
)
from helpers.web import NOON_MS, a_node, a_view


class Federation:
    """Stands in for the registry and its judge; counts how often it was judged."""

    def __init__(self):
        self.nodes = [a_node()]
        self.judged = 0
        self.compared = 0
        self.fault = None

    def view(self, _own, _at_ms, _expiry_ms, held):
        """Judge."""
        self.judged += 1
        if self.fault is not None:
            raise self.fault
        self.held = held
        return a_view(*self.nodes)


@pytest.fixture
def federation():
    """A federation of one node."""
    return Federation()


@pytest.fixture
def clock():
    """Virtual time."""
    return Clock()


@pytest.fixture
def path(tmp_path):
    """Where registration.xml goes."""
    return tmp_path / "registration.xml"


@pytest.fixture
def picture(federation, clock, path, tmp_path):
    """A picture that has not been started."""
    database = Database(tmp_path / FILE_NAME)
    yield Picture(
        federation,
        lambda: None,
        lambda: federation.compared,
        lambda: 0,
        RegistrationFile(path, database),
        ListFiles(path.parent, tuple(USUAL)),
        clock,
        lambda: NOON_MS + int(clock.seconds() * 1000),
    )
    database.close()


@pytest.fixture
def lines():
    """What the log says."""
    said = []

    def observe(event):
        said.append(event["log_format"].format(**event))

    assert isinstance(globalLogPublisher, LogPublisher)
    globalLogPublisher.addObserver(observe)
    yield said
    globalLogPublisher.removeObserver(observe)


def test_who_claims_groups_in_vain_is_named_once(picture, federation, lines):
    """A peer group beyond the certificate is told with its author, again only when the claim changes."""
    picture.start()
    for claimed in (("evil",), ("evil",), ("evil", "worse"), ()):
        federation.nodes = [a_node("b.example.org", groups_refused=claimed)]
        picture._draw()
    told = [line for line in lines if "claims peer groups" in line]
    assert [line.rpartition(": ")[2] for line in told] == ["evil", "evil, worse"]
    assert all(line.startswith("b.example.org ") for line in told)


ACCEPTED = fx.DigestAccepted("b.example.org", 1, 1, frozenset(), leaving=False)


def test_a_burst_is_drawn_once_and_soon(picture, federation, clock):
    """Changes that follow each other are one drawing; a stream of them does not put it off."""
    picture._is_ready = True
    picture.start()
    before = federation.judged
    picture.notice(ACCEPTED)
    picture.notice(ACCEPTED)
    clock.advance(REDRAW_AFTER_S)
    assert federation.judged == before + 1
    drawn_after_s = 0.0
    while federation.judged == before + 1:
        picture.notice(ACCEPTED)
        clock.advance(REDRAW_AFTER_S / 2)
        drawn_after_s += REDRAW_AFTER_S / 2
        assert drawn_after_s <= REDRAW_LATEST_S + REDRAW_AFTER_S


def test_while_the_registry_fills_documents_are_drawn_once_a_second(picture, federation, clock):
    """A start moves everything all the time, and nobody relies on it yet."""
    picture.start()
    before = federation.judged
    for _ in range(20):
        picture.notice(ACCEPTED)
        clock.advance(REDRAW_UNREADY_S / 10)
    assert before + 1 <= federation.judged <= before + 3


def test_the_view_is_new_at_once(picture, federation):
    """Who asks after a change sees it, drawn or not."""
    picture.start()
    federation.nodes.append(a_node("b.example.org"))
    assert len(picture.view().nodes) == 1
    picture.notice(ACCEPTED)
    assert len(picture.view().nodes) == 2
    assert picture.view() is picture.view()


def test_document_events_and_callbacks_follow(picture, federation, clock, path):
    """A node that comes is in the file, in the kept document and in the events; who listened is called."""
    called = []
    picture._is_ready = True
    picture.start()
    end = picture.on_view_changed(lambda: called.append(True))
    federation.nodes.append(a_node("b.example.org"))
    picture.notice(ACCEPTED)
    clock.advance(REDRAW_AFTER_S)
    assert path.read_bytes().count(b"<Node ") == 2
    assert picture.documents.get("registration.xml").body == path.read_bytes()
    event = picture.events.since(0)[-1]
    assert (event.name, event.data) == ("node-status", {"host": "b.example.org", "status": "up"})
    end()
    picture.notice(ACCEPTED)
    clock.advance(REDRAW_AFTER_S)
    assert called == [True]


def test_files_are_written_anew_when_somebody_asks(picture, path):
    """Also where they say nothing new; what the disk refuses is told."""
    picture._is_ready = True
    picture.start()
    files = (path, path.with_name("esgf_shards.xml"))
    before = [file.stat().st_ino for file in files]
    assert picture.write_anew() == []
    assert all(file.stat().st_ino != inode for file, inode in zip(files, before, strict=True))
    path.unlink()
    path.mkdir()
    assert any(str(path) in error for error in picture.write_anew())
    path.rmdir()


def test_expiry_is_seen_without_any_message(picture, federation, clock):
    """A node that falls silent turns stale by the clock alone."""
    picture.start()
    federation.nodes[0] = a_node(status=NodeStatus.STALE)
    clock.advance(REDRAW_EVERY_S)
    assert picture.events.since(0)[-1].data["status"] == "stale"


def test_a_fault_while_drawing_does_not_end_the_drawing(picture, federation, clock):
    """One view that cannot be made costs that view, not all that come after it."""
    picture.start()
    federation.fault = RuntimeError("odd")
    with pytest.raises(RuntimeError, match="odd"):
        clock.advance(REDRAW_EVERY_S)
    federation.fault = None
    before = federation.judged
    clock.advance(REDRAW_EVERY_S)
    assert federation.judged == before + 1


def test_a_start_that_failed_leaves_the_file_of_the_last_run(picture, federation, path):
    """Before the registry is back from the disk a view is empty: it must never reach the file."""
    path.write_bytes(b"<Registration timeStamp='5'><Node/></Registration>")
    federation.nodes = []
    picture.stop()
    assert path.read_bytes() == b"<Registration timeStamp='5'><Node/></Registration>"


def test_a_stop_draws_a_last_time_and_leaves_no_timer(picture, federation, clock, path):
    """What changed in the last tenth of a second is on the disk."""
    picture.start()
    federation.nodes.append(a_node("b.example.org"))
    picture.notice(ACCEPTED)
    picture.notice(fx.PeerJoined("b.example.org"))
    picture.stop()
    assert path.read_bytes().count(b"<Node ") == 2
    assert clock.getDelayedCalls() == []


def test_ready_when_two_peers_agree_or_time_is_up(picture, federation, clock):
    """Alone it waits half a minute; with others it waits for as many of them as there are, two at most."""
    assert not picture.is_ready()
    federation.nodes += [a_node("b.example.org"), a_node("c.example.org"), a_node("d.example.org")]
    picture.moved()
    federation.compared = 1
    assert not picture.is_ready()
    federation.compared = 2
    assert picture.is_ready()
    federation.compared = 0
    assert picture.is_ready()


def test_ready_alone_after_a_while(picture, clock):
    """A node without peers serves what it has."""
    clock.advance(READY_AFTER_S)
    assert picture.is_ready()


def test_a_fork_is_told_and_the_view_drawn_anew(picture, lines, federation):
    """Who signed what contradicts itself is named with the certificate to revoke."""
    picture.start()
    judged = federation.judged
    picture.notice(fx.ForkProven("b.example.org", b"\xab" * 32))
    picture.view()
    assert federation.judged == judged + 1
    assert re.search(f"b.example.org signed what contradicts itself with certificate {'ab' * 32}", lines[-1])


@pytest.mark.parametrize(
    ("notice", "words"),
    [
        (
            lx.LogRewritten(
                "b.example.org",
                "datasets",
                RewriteEvidence(SignedDigest(b"", b""), SignedDigest(b"", b""), "datasets", ()),
            ),
            "b.example.org has rewritten its log datasets",
        ),
        (lx.LogRestarted("b.example.org", "datasets"), "b.example.org has begun its log datasets anew"),
        (lx.LogRecovered("datasets", 9), "gave back 9 lost events of log datasets"),
    ],
)
def test_what_happens_to_logs_is_told(picture, lines, notice, words):
    """A rewritten past, a new beginning and events that came back are the operator's to know."""
    picture.notice(notice)
    assert words in lines[-1]


def test_leaves_that_arrive_draw_nothing_anew(picture, federation):
    """A million events move no view: none of them is shown."""
    picture.start()
    judged = federation.judged
    picture.notice(lx.LeavesAccepted("b.example.org", "datasets", 1, 0, 9))
    picture.view()
    assert federation.judged == judged


def test_an_address_out_of_reach_is_news_at_first_and_now_and_then(picture, lines, clock):
    """A seed that is down for a year fills no log."""
    for attempts in range(1, 2 * DIAL_NEWS_EVERY + 1):
        picture.notice(fx.DialFailed(("b.example.org", 8951), "refused", attempts))
    assert [re.search(r"attempt (\d+)", line)[1] for line in lines] == [
        "1",
        str(DIAL_NEWS_EVERY),
        str(2 * DIAL_NEWS_EVERY),
    ]


@pytest.mark.parametrize(
    ("notice", "words"),
    [
        (fx.PeerParted("b.example.org", "gone"), "links to b.example.org"),
        (fx.DigestTurnedAway("x.example.org", "b.example.org", "bad"), "digests sent by b.example.org"),
    ],
)
def test_one_peer_cannot_flood_the_log(picture, lines, clock, notice, words):
    """A member that connects, or lies, in a loop gets some lines a minute and then a number."""
    for _ in range(500):
        picture.notice(notice)
    assert len(lines) == LINES_A_WINDOW
    picture.notice(fx.PeerJoined("c.example.org"))
    assert lines[-1] == "linked to c.example.org"
    clock.advance(WINDOW_S)
    assert lines[-1] == f"{500 - LINES_A_WINDOW} more lines on {words} within a minute"


@pytest.fixture
def old_document(path):
    """What an earlier run, or the old node manager, left."""
    document = (
        b'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
        b'<Registration xmlns="http://www.esgf.org/registry" timeStamp="5" version="v0.0.1">\n'
        b'    <Node hostname="old.example.org"/>\n</Registration>\n'
    )
    path.write_bytes(document)
    return document


def test_a_full_document_on_the_disk_outlives_a_start_with_an_empty_memory(
    old_document, picture, federation, clock, path
):
    """Until the picture was compared with peers, readers keep what they had; it is served too."""
    federation.nodes = [a_node(), a_node("b.example.org")]
    picture.start()
    picture.notice(ACCEPTED)
    clock.advance(5)
    assert path.read_bytes() == old_document
    assert picture.documents.get("registration.xml").body == old_document
    federation.compared = 1
    clock.advance(1.5)
    assert path.read_bytes().count(b"<Node ") == 2
    assert b"old.example.org" not in path.read_bytes()


def test_an_old_document_is_replaced_at_the_latest_after_half_a_minute(old_document, picture, clock, path):
    """A node that stays alone shows what it knows in the end."""
    picture.start()
    clock.advance(READY_AFTER_S - 2)
    assert path.read_bytes() == old_document
    for _ in range(4):
        clock.advance(1)
    assert path.read_bytes() != old_document


def test_a_stop_before_readiness_leaves_the_old_document(old_document, picture, clock, path):
    """A daemon that ends at once has learnt nothing worth writing."""
    picture.start()
    clock.advance(1)
    picture.stop()
    assert path.read_bytes() == old_document
