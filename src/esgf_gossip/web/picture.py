"""
The current picture of the federation, for everybody on this host who looks at it.

Hears the core's notices, keeps the view, the documents and the events in step
with the registry. Nothing flows back from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from esgf_gossip.core import effects as fx
from esgf_gossip.core import log_effects as lx
from esgf_gossip.core.verdicts import Verdict
from esgf_gossip.esgf.health import NEVER_PROBED, ServiceHealth
from esgf_gossip.net.sparing import Sparing
from esgf_gossip.storage.list_files import ListFiles
from esgf_gossip.storage.outputs import RegistrationFile
from esgf_gossip.views.federation import FederationView, NodeStatus, OwnState
from esgf_gossip.views.judgement import Judge
from esgf_gossip.views.node_json import utc_text
from esgf_gossip.web.damping import Damping
from esgf_gossip.web.events import EventHub
from esgf_gossip.web.kept import KeptDocuments

# Documents follow a burst of changes once, not at each; events are told at once.
REDRAW_AFTER_S: Final = 0.25
REDRAW_LATEST_S: Final = 0.5
# Expiry changes a view without any message.
REDRAW_EVERY_S: Final = 30.0
# Until then readiness, which no notice tells, is looked at so often.
REDRAW_UNREADY_S: Final = 1.0
# What moves without a notice, the age of a CRL or the state of the disk, is at most so old when somebody asks.
VIEW_AGE_S: Final = 1.0
# Until that many peers showed our root, or this long after the start, the picture may still fill.
READY_PEERS: Final = 2
READY_AFTER_S: Final = 30.0
# An address that cannot be reached is told at first and then at every so many attempts.
DIAL_NEWS_EVERY: Final = 20
# Groups are named by whoever claims them.
GROUPS_TOLD_CHARACTERS: Final = 200

_SAID: Final = {
    Verdict.CLEAR: "reported by nobody any more",
    Verdict.SUSPECT: "reported by some of its observers",
    Verdict.UNREACHABLE: "unreachable: most of its observers hear nothing of it",
}


class Picture:
    """
    The view, kept documents and events of one daemon.

    Args:
        judge: makes views of the registry.
        own_state: what the daemon says of itself now.
        peers_compared: how many peers have shown our own root.
        expiry_ms: the time by which lines expire.
        document: registration.xml.
        lists: the lists beside it.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
    """

    log = Logger()

    def __init__(
        self,
        judge: Judge,
        own_state: Callable[[], OwnState],
        peers_compared: Callable[[], int],
        expiry_ms: Callable[[], int],
        document: RegistrationFile,
        lists: ListFiles,
        clock: IReactorTime,
        now_ms: Callable[[], int],
    ) -> None:
        self.events = EventHub(now_ms())
        self.documents = KeptDocuments(("registration.xml", *lists.names))
        self._judge = judge
        self._own_state = own_state
        self._peers_compared = peers_compared
        self._expiry_ms = expiry_ms
        self._document = document
        self._lists = lists
        self._clock = clock
        self._now_ms = now_ms
        self._view: FederationView | None = None
        self._viewed_at_s = 0.0
        self._callbacks: dict[object, Callable[[], object]] = {}
        self._redraw: IDelayedCall | None = None
        self._moved_at_s: float | None = None
        self._started_at_s = clock.seconds()
        self._is_ready = False
        self._statuses: dict[str, str] | None = None
        self._health: dict[tuple[str, str], ServiceHealth] | None = None
        self._unreadable: dict[str, str] = {}
        self._groups_refused: dict[str, tuple[str, ...]] = {}
        self._is_started = False
        self._damping = Damping()
        self._telling: IDelayedCall | None = None
        self._sparing = Sparing(clock, self._tell_left_out)

    # ----------------------------------------------------------------- reading

    def view(self) -> FederationView:
        """Return the view of this instant; made anew where something moved, and after a second: ages go on."""
        now_s = self._clock.seconds()
        if self._view is None or now_s - self._viewed_at_s >= VIEW_AGE_S:
            self._view = self._judge.view(
                self._own_state(), self._now_ms(), self._expiry_ms(), self._damping.held(now_s)
            )
            self._viewed_at_s = now_s
        return self._view

    def explain(self, host: str) -> dict[str, Any] | None:
        """Return why a node has its status, with the signed evidence; None where no node has that name."""
        node = self.view().node(host)
        return None if node is None else self._judge.explain(node)

    def is_ready(self) -> bool:
        """Tell whether the picture has been compared with others, or had time to."""
        if not self._is_ready:
            others = len(self.view().members) - 1
            has_compared = others > 0 and self._peers_compared() >= min(READY_PEERS, others)
            self._is_ready = has_compared or self._clock.seconds() - self._started_at_s >= READY_AFTER_S
        return self._is_ready

    def on_view_changed(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call back whenever the view may have changed, coalesced; the result ends it."""
        key = object()
        self._callbacks[key] = callback
        return lambda: self._callbacks.pop(key, None) and None

    # ----------------------------------------------------------------- moving

    def start(self) -> None:
        """Draw the first picture, from what the disk gave back."""
        self._is_started = True
        self._draw()

    def stop(self) -> None:
        """Draw a last time and be still."""
        if self._is_started:
            # Never before the first picture: a start that failed would empty the file of the last run.
            self._draw()
        self._is_started = False
        self._sparing.stop()
        if self._redraw is not None and self._redraw.active():
            self._redraw.cancel()
        self._redraw = None
        if self._telling is not None and self._telling.active():
            self._telling.cancel()
        self._telling = None

    def moved(self) -> None:
        """Note that something changed: the view is old at once, documents follow within half a second."""
        self._view = None
        now_s = self._clock.seconds()
        # While the registry fills after a start, everything moves all the time and nobody relies on it.
        after_s, latest_s = (
            (REDRAW_AFTER_S, REDRAW_LATEST_S) if self._is_ready else (REDRAW_UNREADY_S / 2, REDRAW_UNREADY_S)
        )
        if self._moved_at_s is None:
            self._moved_at_s = now_s
        elif now_s + after_s - self._moved_at_s > latest_s:
            return
        self._draw_in(after_s)

    def write_anew(self) -> list[str]:
        """
        Write all output files now, even where they say nothing new; return what the disk refuses.

        What an earlier run left is written when the picture is ready: until then it stays as it is.
        """
        self._document.write_anew()
        self._lists.write_anew()
        self._draw()
        return [error for error in (self._document.write_error, *self._lists.write_errors) if error]

    def _draw_in(self, after_s: float) -> None:
        if self._redraw is not None and self._redraw.active():
            self._redraw.reset(after_s)
        else:
            self._redraw = self._clock.callLater(after_s, self._draw)

    def _draw(self) -> None:
        self._moved_at_s = None
        self._view = None
        # First of all: a fault in what follows must not end the drawing.
        self._draw_in(REDRAW_EVERY_S if self._is_ready else REDRAW_UNREADY_S)
        view = self.view()
        # What an earlier run, or another program, left on the disk is better than a picture that may still fill.
        if self.is_ready() or not self._document.is_inherited:
            self._document.update(view)
        self.documents.keep("registration.xml", self._document.content)
        self._lists.update(view, is_ready=self.is_ready())
        for name, content in self._lists:
            self.documents.keep(name, content)
        self._tell_statuses(view)
        self._tell_health(view)
        self._tell_unreadable(view)
        self._tell_groups_refused(view)
        for callback in tuple(self._callbacks.values()):
            callback()

    def _tell_statuses(self, view: FederationView) -> None:
        statuses = {node.host: node.status.value for node in view.nodes}
        if self._statuses is not None:
            for host, status in statuses.items():
                if self._statuses.get(host) != status:
                    self.events.publish("node-status", {"host": host, "status": status})
        self._statuses = statuses

    def _tell_health(self, view: FederationView) -> None:
        health = {
            (node.host, kind): health
            for node in view.nodes
            if node.health or node.outside
            for kind, health in node.service_health().items()
        }
        before, self._health = self._health, health
        if before is None:
            return
        for host, kind in sorted(before.keys() | health.keys()):
            old, new = before.get((host, kind), NEVER_PROBED), health.get((host, kind), NEVER_PROBED)
            if old.health is not new.health:
                body = {"host": host, "type": kind, "health": new.health.value}
                since = None if new.since_ms is None else utc_text(new.since_ms)
                self.events.publish("service-health", {**body, "since": since})

    def _tell_unreadable(self, view: FederationView) -> None:
        errors = {
            node.host: node.registration_error
            for node in view.nodes
            if node.registration_error and node.status is not NodeStatus.LEFT
        }
        for host, error in errors.items():
            if self._unreadable.get(host) != error:
                self.log.warn("{host} is not in the documents: {error}", host=host, error=error)
        self._unreadable = errors

    def _tell_groups_refused(self, view: FederationView) -> None:
        refused = {node.host: node.groups_refused for node in view.nodes if node.groups_refused}
        for host, groups in refused.items():
            if self._groups_refused.get(host) != groups:
                self.log.warn(
                    "{host} claims peer groups that its certificate does not grant, they are not shown: {groups}",
                    host=host,
                    groups=", ".join(groups)[:GROUPS_TOLD_CHARACTERS],
                )
        self._groups_refused = refused

    # ----------------------------------------------------------------- notices

    def notice(self, notice: fx.Notice) -> None:
        """Hear one notice of the core: tell the log, the events, the next picture."""
        match notice:
            case fx.DigestAccepted():
                self.events.publish(
                    "digest-accepted",
                    {"origin": notice.origin, "epoch": notice.epoch, "sequence": notice.sequence},
                )
            case fx.LineWithdrawn():
                self.log.warn("{origin} is out: {reason}", origin=notice.origin, reason=notice.reason)
            case fx.DigestTurnedAway():
                if self._sparing.allows(f"digests sent by {notice.peer}"):
                    self.log.warn(
                        "refused a digest of {origin}, sent by {peer}: {reason}",
                        origin=notice.origin,
                        peer=notice.peer,
                        reason=notice.reason,
                    )
            case fx.ForkProven():
                self.log.critical(
                    "{origin} signed what contradicts itself with certificate {certificate}: a stolen key, or a lie; "
                    "revoke the certificate",
                    origin=notice.origin,
                    certificate=notice.certificate_sha256.hex(),
                )
            case lx.LeavesAccepted() | fx.TrustAccepted() | fx.TrustTurnedAway() | fx.TrustConflict():
                return  # nothing of it is shown here
            case lx.LogRewritten():
                self.log.critical(
                    "{origin} has rewritten its log {name}: what it tells there is not taken any more",
                    origin=notice.origin,
                    name=notice.log,
                )
            case lx.LogRestarted():
                self.log.warn("{origin} has begun its log {name} anew", origin=notice.origin, name=notice.log)
            case lx.LogRecovered():
                self.log.warn(
                    "peers gave back {count} lost events of log {name}", count=notice.count, name=notice.log
                )
            case fx.VerdictChanged():
                self._verdict_changed(notice)
            case fx.PeerJoined():
                if self._sparing.allows(f"links to {notice.peer}"):
                    self.log.info("linked to {peer}", peer=notice.peer)
            case fx.PeerParted():
                if self._sparing.allows(f"links to {notice.peer}"):
                    self.log.info("link to {peer} ended: {reason}", peer=notice.peer, reason=notice.reason)
            case fx.DialFailed():
                self._dial_failed(notice)
                return
            case fx.EpochTaken():
                self.log.warn(
                    "peers hold a digest of this node that it does not remember; epoch {epoch} begins",
                    epoch=notice.epoch,
                )
            case fx.PublishingStopped():
                self.log.critical("this node publishes no more: {reason}", reason=notice.reason)
        self.moved()

    def _verdict_changed(self, notice: fx.VerdictChanged) -> None:
        now_s = self._clock.seconds()
        if notice.verdict is Verdict.UNREACHABLE:
            self._damping.fell(notice.host, now_s)
        else:
            held_s = self._damping.rose(notice.host, now_s)
            if held_s:
                self._clock.callLater(held_s, self._tell_now)
        if self._sparing.allows(f"verdicts on {notice.host}"):
            say = self.log.info if notice.verdict is Verdict.CLEAR else self.log.warn
            say("{host} is {verdict}", host=notice.host, verdict=_SAID[notice.verdict])
        # Told before the documents follow, but once for all verdicts of this moment.
        if self._telling is None:
            self._telling = self._clock.callLater(0.0, self._tell_now)

    def _tell_now(self) -> None:
        self._telling = None
        if not self._is_started:
            return
        self.moved()
        self._tell_statuses(self.view())

    def _tell_left_out(self, subject: str, count: int) -> None:
        self.log.warn("{count} more lines on {subject} within a minute", count=count, subject=subject)

    def _dial_failed(self, notice: fx.DialFailed) -> None:
        if notice.attempts == 1 or notice.attempts % DIAL_NEWS_EVERY == 0:
            self.log.info(
                "cannot reach {host}:{port}: {reason} (attempt {attempts}; it is tried again)",
                host=notice.address[0],
                port=notice.address[1],
                reason=notice.reason,
                attempts=notice.attempts,
            )
