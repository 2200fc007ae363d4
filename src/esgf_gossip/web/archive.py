"""
The past of one daemon: keeps what happens in the history file, answers what was.

Writes from the reactor, a fraction of a second after it happened; answers in threads, two at a time.
That there is no history, or that its disk fails, never stops the daemon.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore, fail
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from esgf_gossip.core import effects as fx
from esgf_gossip.core.model import VerifiedDigest
from esgf_gossip.core.reachability import REACHABILITY
from esgf_gossip.core.registry import Registry
from esgf_gossip.esgf.health import NEVER_PROBED
from esgf_gossip.sources.gauge import in_thread
from esgf_gossip.storage.history import History, News
from esgf_gossip.storage.history_reader import HistoryError, HistoryReader, Kept, Wish
from esgf_gossip.views.differences import view_differences
from esgf_gossip.views.federation import FederationView, OwnState
from esgf_gossip.views.history_json import DIGEST, FORK, HEALTH, STATUS, WITHDRAWN, change_body
from esgf_gossip.views.judgement import Policy
from esgf_gossip.views.node_json import plain_utc
from esgf_gossip.views.past import past_view
from esgf_gossip.views.registration_xml import ElementCache, render
from esgf_gossip.web.events import Event
from esgf_gossip.web.picture import Picture

# What happens within so long goes to the disk together.
WRITE_AFTER_S: Final = 0.2
TRIM_EVERY_S: Final = 600.0
TRIM_AGAIN_S: Final = 1.0
# What the disk refuses waits in memory, this much of it at most.
WAITING_NEWS: Final = 10_000
WAITING_BYTES: Final = 32 * 1024 * 1024
AT_ONCE: Final = 2
RECENT: Final = 30
WAITING_QUESTIONS: Final = 32
# Whatever strangers publish, one answer ends about here; the next page goes on.
ANSWER_CHARACTERS: Final = 1_000_000

T = TypeVar("T")
_UNTOLD: Final = {REACHABILITY, "services", "observations", "resources", "metrics"}
_JOINED: Final = "is known from now on"


class PastError(Exception):
    """Report why the past cannot be told now, in one line."""


class TooEarlyError(PastError):
    """Report that a time is before the history of this node begins."""

    def __init__(self, begins_ms: int) -> None:
        super().__init__(
            f"the history of this node begins at {plain_utc(begins_ms)}"
            if begins_ms
            else "this node has no history yet"
        )


class Archive:
    """
    Keeps and tells the past.

    Args:
        path: of the history file.
        keep_ms: how far back.
        most_bytes: how large the file may become.
        registry: what the node holds now.
        own: what the daemon says of itself.
        policy: of this site.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
        run: does a piece of work elsewhere; by default in a thread.
    """

    log = Logger()

    def __init__(
        self,
        path: Path,
        keep_ms: int,
        most_bytes: int,
        registry: Registry,
        own: Callable[[], OwnState],
        policy: Callable[[], Policy],
        clock: Any,
        now_ms: Callable[[], int],
        run: Callable[[Callable[[], Any], Any], Deferred[Any]] = in_thread,
    ) -> None:
        self.failure = ""
        # What happened last, newest first, for the front page: as in the file, the digests in fewer words.
        self.recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._path: Final = path
        self._registry: Final = registry
        self._own: Final = own
        self._policy: Final = policy
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._run: Final = run
        self._waiting: deque[News] = deque()
        self._waiting_bytes = 0
        self._statuses: dict[str, str] = {}
        self._health: dict[tuple[str, str], str] = {}
        self._writing: IDelayedCall | None = None
        self._trimming: IDelayedCall | None = None
        self._places = DeferredSemaphore(AT_ONCE)
        self._questions = 0
        self._history: History | None = None
        try:
            self._history = History(path, keep_ms, most_bytes)
        except HistoryError as error:
            self._failed(str(error))
        else:
            if self._history.put_aside:
                self.log.warn(
                    "the history was damaged and is put aside as {aside}; a new one begins",
                    aside=self._history.put_aside,
                )

    # ----------------------------------------------------------------- keeping

    def start(self, picture: Picture) -> None:
        """Keep what the registry holds and the file does not yet, then what a picture tells from now on."""
        if self._history is None:
            return
        picture.events.subscribe(self.hear)
        # Before that the registry still fills, and verdicts of it mean little.
        picture.on_view_changed(lambda: self.look(picture.view()) if picture.is_ready() else None)
        try:
            newest = self._history.newest()
            self._statuses = {
                host: str(detail.get("status"))
                for (host, _), detail in self._history.last_words(STATUS).items()
            }
            self._health = {
                key: str(detail.get("health")) for key, detail in self._history.last_words(HEALTH).items()
            }
        except HistoryError as error:
            self._failed(str(error))
            return
        try:
            self._fill_recent()
        except Exception:  # noqa: BLE001 - texts of strangers are told here; a daemon must start whatever they are
            self.log.failure("what happened last cannot be told")
        for line in self._registry.table:
            if newest.get(line.digest.origin) != line.payload_sha256:
                self._digest(
                    line, _JOINED if line.digest.origin not in newest else "has said something new meanwhile"
                )
        for host in newest.keys() - {line.digest.origin for line in self._registry.table}:
            self._forget(host)
            self._add(News(self._now_ms(), host, WITHDRAWN, {"reason": "not held any more after a restart"}))
        self._trimming = self._clock.callLater(TRIM_AGAIN_S, self._trim)

    def stop(self) -> None:
        """Write what waits, close the file."""
        for call in (self._writing, self._trimming):
            if call is not None and call.active():
                call.cancel()
        self._write()
        if self._history is not None:
            self._history.close()
            self._history = None

    def notice(self, notice: fx.Notice) -> None:
        """Hear one notice of the core."""
        match notice:
            case fx.DigestAccepted():
                line = self._registry.table.line(notice.origin)
                if line is not None:
                    self._digest(line, _words(notice))
            case fx.LineWithdrawn():
                self._forget(notice.origin)
                self._add(News(self._now_ms(), notice.origin, WITHDRAWN, {"reason": notice.reason}))
            case fx.ForkProven():
                proof = {"certificate": notice.certificate_sha256.hex()}
                self._add(News(self._now_ms(), notice.origin, FORK, proof))
            case _:
                pass

    def hear(self, event: Event) -> None:
        """Hear one event of the picture: verdicts and health."""
        if event.name == "node-status":
            self._status(str(event.data["host"]), str(event.data["status"]))
        elif event.name == "service-health":
            self._service(str(event.data["host"]), str(event.data["type"]), str(event.data["health"]))

    def look(self, view: FederationView) -> None:
        """Keep what a view says and no event told: what changed while this node was down."""
        for node in view.members:
            self._status(node.host, node.status.value)
        health = {
            (node.host, kind): health.health.value
            for node in view.members
            for kind, health in node.service_health().items()
        }
        for host, kind in sorted(self._health.keys() | health.keys()):
            self._service(host, kind, health.get((host, kind), NEVER_PROBED.health.value))

    def _status(self, host: str, status: str) -> None:
        before = self._statuses.get(host)
        if status != before:
            self._statuses[host] = status
            self._add(News(self._now_ms(), host, STATUS, {"status": status, "before": before}))

    def _service(self, host: str, kind: str, health: str) -> None:
        before = self._health.get((host, kind))
        if health != (before or NEVER_PROBED.health.value):
            self._health[host, kind] = health
            detail = {"type": kind, "health": health, "before": before}
            self._add(News(self._now_ms(), host, HEALTH, detail))

    def _forget(self, host: str) -> None:
        # Whoever comes back is judged anew, and that is worth a line.
        self._statuses.pop(host, None)
        for key in [key for key in self._health if key[0] == host]:
            del self._health[key]

    def _digest(self, line: VerifiedDigest, words: str) -> None:
        bodies = self._registry.bodies_of(line.digest)
        self._add(News(self._now_ms(), line.digest.origin, DIGEST, {}, line, bodies), words)

    def _fill_recent(self) -> None:
        with HistoryReader(self._path) as reader:
            for one in reversed(reader.changes(Wish(limit=RECENT))):
                told = _told(reader, one)
                self.recent.appendleft({**_brief(one.at_ms, one.host, one.kind), "summary": told["summary"]})

    def _add(self, news: News, words: str = "") -> None:
        if words or news.line is None:
            said = words or change_body(0, news.at_ms, news.host, news.kind, news.detail)["summary"]
            self.recent.appendleft({**_brief(news.at_ms, news.host, news.kind), "summary": said})
        if self._history is None:
            return
        self._waiting.append(news)
        self._waiting_bytes += _weight(news)
        while len(self._waiting) > WAITING_NEWS or self._waiting_bytes > WAITING_BYTES:
            self._waiting_bytes -= _weight(self._waiting.popleft())
        if self._writing is None or not self._writing.active():
            self._writing = self._clock.callLater(WRITE_AFTER_S, self._write)

    def _write(self) -> None:
        if self._history is None or not self._waiting:
            return
        try:
            self._history.add(list(self._waiting))
        except HistoryError as error:
            self._failed(str(error))
            return
        self._waiting.clear()
        self._waiting_bytes = 0
        if self.failure:
            self.log.info("the history is written again")
            self.failure = ""

    def _trim(self) -> None:
        has_more = False
        if self._history is not None:
            try:
                has_more = self._history.trim(self._now_ms())
            except HistoryError as error:
                self._failed(str(error))
            # What the disk refused is tried again, even where nothing new happens.
            self._write()
        self._trimming = self._clock.callLater(TRIM_AGAIN_S if has_more else TRIM_EVERY_S, self._trim)

    def _failed(self, failure: str) -> None:
        if failure != self.failure:
            self.failure = failure
            self.log.critical("history: {failure}; going on without", failure=failure)

    # ----------------------------------------------------------------- telling

    def changes(self, wish: Wish) -> Deferred[dict[str, Any]]:
        """
        Return what happened, the newest first: ``changes``, ``begins_ms``, ``next_before`` or None.

        Fails with:
            PastError: there is no history, or too many ask.
        """

        def read(reader: HistoryReader) -> dict[str, Any]:
            # One more than asked for tells whether there is a next page.
            kept = reader.changes(attrs.evolve(wish, limit=wish.limit + 1))
            told: list[dict[str, Any]] = []
            size = 0
            for one in kept[: wish.limit]:
                told.append(_told(reader, one))
                size += sum(_size(difference) for difference in told[-1]["changes"])
                if size > ANSWER_CHARACTERS:
                    break
            return {
                "begins_ms": reader.begins_ms(),
                "changes": told,
                "next_before": told[-1]["id"] if len(kept) > len(told) else None,
            }

        return self._ask(read)

    def view(self, at_ms: int) -> Deferred[FederationView]:
        """
        Return the view of an earlier time.

        Fails with:
            TooEarlyError: nothing is known of that time.
            PastError: as ``changes``.
        """
        judge = self._judge()
        return self._ask(lambda reader: judge(reader, at_ms))

    def document(self, at_ms: int) -> Deferred[bytes]:
        """Return registration.xml as it would have been written at a time; fails as ``view``."""
        judge = self._judge()

        def read(reader: HistoryReader) -> bytes:
            view = judge(reader, at_ms)
            # A cache of its own: the shared one is not for threads.
            return render(view.nodes, view.newest_ms, ElementCache())

        return self._ask(read)

    def differences(self, from_ms: int, to_ms: int) -> Deferred[list[dict[str, Any]]]:
        """Return what differs between two times, one object a node; fails as ``view``."""
        judge = self._judge()
        return self._ask(lambda reader: view_differences(judge(reader, from_ms), judge(reader, to_ms)))

    def _judge(self) -> Callable[[HistoryReader, int], FederationView]:
        # Asked now: neither may be asked in a thread.
        own, policy = self._own(), self._policy()

        def view(reader: HistoryReader, at_ms: int) -> FederationView:
            begins_ms = reader.begins_ms()
            if at_ms < begins_ms or not begins_ms:
                raise TooEarlyError(begins_ms)
            lines = reader.lines(at_ms)
            refs = (ref.sha256 for line in lines for ref in line.digest.entries.values())
            return past_view(lines, reader.bodies(refs), own, at_ms, lambda: policy)

        return view

    def _ask(self, read: Callable[[HistoryReader], T]) -> Deferred[T]:
        # Each try at a disk that fails costs half a second: questions must not add to those that news make.
        if not self.failure:
            self._write()
        if self._history is None:
            return fail(PastError(f"there is no history: {self.failure or 'the daemon stops'}"))
        if self._questions >= WAITING_QUESTIONS:
            return fail(PastError("too many questions about the past at once; ask again in a second"))
        self._questions += 1

        def work() -> T:
            try:
                with HistoryReader(self._path) as reader:
                    return read(reader)
            except HistoryError as error:
                raise PastError(str(error)) from None

        answer: Deferred[T] = self._places.run(self._run, work, self._clock)
        return answer.addBoth(self._answered)

    def _answered(self, result: Any) -> Any:
        self._questions -= 1
        return result


def _brief(at_ms: int, host: str, kind: str) -> dict[str, Any]:
    return {"at_ms": at_ms, "host": host, "kind": kind}


def _words(notice: fx.DigestAccepted) -> str:
    """Say in a few words what a digest brought; nothing where it brought only a later date."""
    if notice.leaving:
        return "has left the federation"
    # Reports on others show as the verdicts they lead to, health as itself; loads come all day.
    changed = notice.changed - _UNTOLD
    return f"published {', '.join(sorted(changed))}" if changed else ""


def _told(reader: HistoryReader, one: Kept) -> dict[str, Any]:
    if one.line is None:
        return change_body(one.id, one.at_ms, one.host, one.kind, one.detail)
    before = reader.before(one)
    digest = one.line.digest
    digests = [digest] if before is None or before.line is None else [digest, before.line.digest]
    bodies = reader.bodies(_names(digests))
    return change_body(
        one.id,
        one.at_ms,
        one.host,
        one.kind,
        one.detail,
        (digest, bodies),
        None if before is None or before.line is None else (before.line.digest, bodies),
    )


def _weight(news: News) -> int:
    return sum(map(len, news.bodies.values()))


def _size(difference: Mapping[str, Any]) -> int:
    return sum(len(str(value)) for value in difference.values())


def _names(digests: Iterable[Any]) -> set[bytes]:
    """Return the bodies that are not the same in all digests: only what changed is read."""
    each = [{ref.sha256 for ref in digest.entries.values()} for digest in digests]
    return set.union(*each) - (set.intersection(*each) if len(each) > 1 else set())
