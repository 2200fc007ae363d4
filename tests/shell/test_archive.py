"""What the daemon keeps of the past and tells of it: web.archive, with a real file and virtual time."""

import attrs
import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from esgf_gossip.core import effects as fx
from esgf_gossip.core.registry import Registry, sha256
from esgf_gossip.esgf.health import Health, ServiceHealth
from esgf_gossip.esgf.node_type import NodeType
from esgf_gossip.storage.history import History
from esgf_gossip.storage.history_reader import FILE_NAME, Wish
from esgf_gossip.views.federation import NodeStatus
from esgf_gossip.views.judgement import Policy
from esgf_gossip.web.archive import WAITING_QUESTIONS, WRITE_AFTER_S, Archive, PastError, TooEarlyError
from esgf_gossip.web.events import EventHub
from helpers.bench import a_line
from helpers.web import a_node, a_registration, a_view

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000
HOST = "b.example.org"


class StubPicture:
    """A picture that a test moves."""

    def __init__(self):
        self.events = EventHub()
        self.shown = a_view(a_node(HOST))
        self.callback = None
        self.ready = True

    def on_view_changed(self, callback):
        self.callback = callback

    def view(self):
        return self.shown

    def is_ready(self):
        return self.ready


class Scene:
    """An archive over a registry, in virtual time; questions are answered at once."""

    def __init__(self, folder):
        self.folder = folder
        self.clock = Clock()
        self.registry = Registry()
        self.picture = StubPicture()
        self.open()

    def now_ms(self):
        return NOW_MS + int(self.clock.seconds() * 1000)

    def open(self):
        self.archive = Archive(
            self.folder / FILE_NAME,
            DAY_MS,
            2**30,
            self.registry,
            lambda: a_view().own,
            Policy,
            self.clock,
            self.now_ms,
            lambda work, _clock: maybeDeferred(work),
        )
        self.archive.start(self.picture)

    def accept(self, sequence, **properties):
        body = a_registration(HOST, **properties).to_body()
        line = a_line(HOST, 1, sequence, {"registration": body}, issued_at_ms=self.now_ms())
        self.registry.accept(line.verified, {sha256(body): body})
        self.archive.notice(fx.DigestAccepted(HOST, 1, sequence, frozenset(), leaving=False))

    def told(self, **wish):
        return got(self.archive.changes(Wish(**wish)))["changes"]


def got(answer: Deferred):
    """Return what an answer that is there brings, or raise what it failed with."""
    results = []
    answer.addBoth(results.append)
    assert results, "no answer yet"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


@pytest.fixture
def scene(tmp_path):
    """An archive of one node."""
    made = Scene(tmp_path)
    yield made
    made.archive.stop()


def test_digests_verdicts_and_health_are_kept_and_told(scene):
    """What the core and the picture tell stands in the history at once, the newest first."""
    scene.accept(1)
    scene.clock.advance(10)
    scene.accept(2, node__short__name="B")
    scene.picture.events.publish("node-status", {"host": HOST, "status": "suspect"})
    scene.picture.events.publish("service-health", {"host": HOST, "type": "LASService", "health": "down"})
    scene.archive.notice(fx.LineWithdrawn(HOST, "revoked"))
    assert [(one["kind"], one["summary"]) for one in scene.told()] == [
        ("withdrawn", "is out: revoked"),
        ("health", "LASService is down"),
        ("status", "is suspect"),
        ("digest", "registration: node.short.name"),
        ("digest", "is known from now on"),
    ]


def test_a_page_says_where_the_next_begins(scene):
    """Paging by id loses nothing and tells nothing twice."""
    for sequence in range(1, 6):
        scene.accept(sequence)
    first = got(scene.archive.changes(Wish(limit=3)))
    rest = got(scene.archive.changes(Wish(limit=3, before_id=first["next_before"])))
    assert [one["sequence"] for one in first["changes"] + rest["changes"]] == [5, 4, 3, 2, 1]
    assert rest["next_before"] is None


def test_the_federation_and_its_document_are_as_they_were(scene):
    """The view, registration.xml and the differences of two times."""
    scene.accept(1)
    scene.clock.advance(60)
    scene.accept(2, node__short__name="B")
    now_ms, then_ms = scene.now_ms(), scene.now_ms() - 1000
    assert got(scene.archive.view(then_ms)).node(HOST).registration.short_name == "A"
    assert got(scene.archive.view(now_ms)).node(HOST).registration.short_name == "B"
    assert b'shortName="A"' in got(scene.archive.document(then_ms))
    (difference,) = got(scene.archive.differences(then_ms, now_ms))
    assert {one["name"] for one in difference["changes"]} == {"short_name", "property.node.short.name"}
    # An empty federation would be a lie: nothing is known of that time.
    for answer in (
        scene.archive.view(NOW_MS - 1),
        scene.archive.document(NOW_MS - 1),
        scene.archive.differences(NOW_MS - 1, now_ms),
    ):
        with pytest.raises(TooEarlyError, match="begins at 2023-11-14 22:13:20 UTC"):
            got(answer)


def test_what_changed_while_the_daemon_was_down_is_kept_at_the_start(scene):
    """A lost tail, a digest of the meantime and a verdict that is another one now."""
    scene.accept(1)
    scene.archive.look(scene.picture.view())
    scene.archive.stop()
    body = a_registration(HOST).to_body()
    scene.registry.accept(a_line(HOST, 1, 2, {"registration": body}).verified, {sha256(body): body})
    scene.open()
    scene.picture.shown = a_view(a_node(HOST, status=NodeStatus.UNREACHABLE))
    scene.picture.ready = False
    scene.picture.callback()
    assert [one["kind"] for one in scene.told()] == ["digest", "status", "digest"]
    scene.picture.ready = True
    scene.picture.callback()
    assert scene.told(limit=1)[0]["summary"] == "is unreachable, was up"
    scene.picture.callback()
    assert len(scene.told()) == 4


def test_health_that_changed_while_the_daemon_was_down_is_told_once(scene):
    """A service that is offered no more is unknown, as the picture says it; one that nobody offers is no service."""

    def shown(*types, **properties):
        health = dict.fromkeys(types, ServiceHealth(Health.UP, NOW_MS))
        said = attrs.evolve(a_registration(HOST, **properties), node_type=NodeType.DATA | NodeType.IDP)
        return a_view(a_node(HOST, registration=said, health=health))

    endpoint = {
        "idp__service__endpoint": "https://b.example.org/idp",
        "idp__service__app__home": "/usr/local/idp",
    }
    scene.accept(1)
    scene.archive.look(shown("OpenIDProvider", "LASService", **endpoint))
    scene.archive.stop()
    scene.open()
    scene.archive.look(shown("LASService"))
    scene.archive.look(shown("LASService"))
    assert [one["summary"] for one in scene.told(kinds=("health",))] == [
        "OpenIDProvider is unknown, was up",
        "OpenIDProvider is up",
    ]


def test_a_line_gone_over_a_restart_is_withdrawn(scene):
    """Trust may end a line while the daemon is down; the table of later times must not show it."""
    scene.accept(1)
    scene.archive.stop()
    scene.registry.withdraw(HOST)
    scene.open()
    assert scene.told()[0]["summary"] == "is out: not held any more after a restart"
    assert got(scene.archive.view(scene.now_ms())).nodes == ()


def test_a_disk_that_fails_loses_nothing_that_fits_into_memory(scene, monkeypatch):
    """The daemon goes on, says so once, and writes what waited when the disk works again."""
    original = History._add

    def full(_self, _news):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(History, "_add", full)
    scene.accept(1)
    scene.clock.advance(WRITE_AFTER_S)
    assert "No space left" in scene.archive.failure
    monkeypatch.setattr(History, "_add", original)
    scene.accept(2)
    scene.clock.advance(WRITE_AFTER_S)
    assert scene.archive.failure == ""
    assert [one["sequence"] for one in scene.told()] == [2, 1]


def test_without_a_file_the_daemon_runs_and_questions_say_why(tmp_path):
    """A folder where the file should be: no history, no crash."""
    (tmp_path / FILE_NAME).mkdir()
    scene = Scene(tmp_path)
    scene.accept(1)
    with pytest.raises(PastError, match="there is no history"):
        scene.told()
    scene.archive.stop()


def test_too_many_questions_are_refused(scene):
    """Questions wait for their turn, so many and no more; each that is answered makes room."""
    pending = []

    def never(_work, _clock):
        pending.append(Deferred())
        return pending[-1]

    scene.archive._run = never
    answers = [scene.archive.changes(Wish()) for _ in range(WAITING_QUESTIONS)]
    assert len(pending) == 2
    with pytest.raises(PastError, match="too many questions"):
        got(scene.archive.changes(Wish()))
    pending[0].callback({"begins_ms": 0})
    assert got(answers[0]) == {"begins_ms": 0}
    assert len(pending) == 3
    for answer in pending[1:]:
        answer.callback(None)


def test_what_a_stranger_nests_stops_neither_telling_nor_a_restart(scene):
    """An entry of a thousand lists within each other is told, and the next start tells it again."""
    for sequence, body in enumerate((b"\x01", b"\x91" * 1000 + b"\x01"), 1):
        line = a_line(HOST, 1, sequence, {"x": body}, issued_at_ms=scene.now_ms())
        scene.registry.accept(line.verified, {sha256(body): body})
        scene.archive.notice(fx.DigestAccepted(HOST, 1, sequence, frozenset({"x"}), leaving=False))
    assert scene.told()[0]["changes"][0]["after"].startswith("list of 1")
    scene.archive.stop()
    scene.open()
    assert scene.archive.failure == ""
    assert len(scene.archive.recent) >= 2


def test_one_answer_ends_where_it_is_large_and_the_next_page_goes_on(scene, monkeypatch):
    """However much strangers change, an answer is bounded; nothing is left out over its pages."""
    monkeypatch.setattr("esgf_gossip.web.archive.ANSWER_CHARACTERS", 1000)
    for sequence in range(1, 21):
        scene.accept(sequence, node__long__name=str(sequence) * 300)
    seen, before = [], None
    while True:
        page = got(scene.archive.changes(Wish(before_id=before)))
        seen += [one["sequence"] for one in page["changes"] if one["kind"] == "digest"]
        before = page["next_before"]
        if before is None:
            break
        assert len(page["changes"]) < 5
    assert seen == list(range(20, 0, -1))


def test_a_node_that_was_out_and_is_back_is_judged_anew(scene):
    """The line that ended took its verdict with it."""
    scene.accept(1)
    scene.picture.events.publish("node-status", {"host": HOST, "status": "up"})
    scene.archive.notice(fx.LineWithdrawn(HOST, "revoked"))
    scene.accept(2)
    scene.picture.events.publish("node-status", {"host": HOST, "status": "up"})
    assert [one["summary"] for one in scene.told(kinds=("status",))] == ["is up", "is up"]


def test_questions_do_not_try_a_disk_that_fails(scene, monkeypatch):
    """What waits is written when its time comes, however much is asked meanwhile."""
    tries = []

    def full(_self, _news):
        tries.append(1)
        raise OSError(28, "No space left on device")

    original = History._add
    monkeypatch.setattr(History, "_add", full)
    scene.accept(1)
    scene.clock.advance(WRITE_AFTER_S)
    assert len(tries) == 1
    for _ in range(5):
        got(scene.archive.changes(Wish()))
    assert len(tries) == 1
    monkeypatch.setattr(History, "_add", original)
    scene.accept(2)
    scene.clock.advance(WRITE_AFTER_S)
    assert len([one for one in scene.told() if one["kind"] == "digest"]) == 2


def test_what_waits_for_a_disk_is_bounded_by_its_bytes(scene, monkeypatch):
    """The newest is kept; memory is not filled by large registrations while nothing can be written."""
    monkeypatch.setattr("esgf_gossip.web.archive.WAITING_BYTES", 3000)
    original = History._add

    def full(_self, _news):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(History, "_add", full)
    for sequence in range(1, 11):
        scene.accept(sequence, node__long__name=str(sequence % 10) * 500)
        scene.clock.advance(WRITE_AFTER_S)
    monkeypatch.setattr(History, "_add", original)
    scene.accept(11)
    scene.clock.advance(WRITE_AFTER_S)
    kept = [one["sequence"] for one in scene.told()]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == 11
    assert 1 < len(kept) < 6
