"""
The index proxy: what a publisher sends to it goes to the real index as it is, and what came of it is remembered.

A publisher names this port in place of its index. Path, query, content type (or its absence) and body are handed on
byte for byte; status, content type and body of the answer come back. What the index did successfully is on the disk
before the publisher has its answer; where our disk fails it gets the answer all the same, since the index has done it,
and the next look through the index finds it. Source: docs/tracking.md, "The index proxy".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.defer import TimeoutError as TookTooLongError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from esgf_gossip.sources.gauge import in_thread
from esgf_gossip.sources.index_client import Answer, IndexUnreachable
from esgf_gossip.tracking.publisher_calls import Call, is_success, read_call
from esgf_gossip.tracking.sightings import Operation, Sighting
from esgf_gossip.web.problems import Problem
from esgf_gossip.web.resources import send_problem

# A publisher sends a file's record at a time; harvesters of old sent whole catalogs.
BODY_BYTES: Final = 32 * 1024 * 1024
# What is larger is read in a thread: the largest takes up to a second.
LARGE_BYTES: Final = 256 * 1024
# Publishers ask for a few records; a call of ``ws`` is answered by a line.
SEARCH_BYTES: Final = 16 * 1024 * 1024
ANSWER_BYTES: Final = 1024 * 1024
# Calls at a time; with the bounds above they stay below a gigabyte.
CALLS: Final = 64
# A retraction of a large dataset deletes thousands of records before it is answered.
INDEX_S: Final = 300.0
# How long a publisher waits for our disk.
DISK_S: Final = 30.0
RETRY_AFTER_S: Final = 5
# The key of ``make_tracking_site``'s pages.
PATH: Final = "esg-search"

_PATHS: Final = re.compile(rb"/esg-search/(?:search/?|ws/([A-Za-z0-9_-]{1,60})(?:/[A-Za-z0-9_-]{0,60}){0,4})")
_TARGET: Final = re.compile(rb"[!-~]{1,8192}")
# Fields of a request that are about this connection alone, or that we write ourselves.
_OURS: Final = frozenset(
    {b"host", b"content-length", b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer"}
    | {b"transfer-encoding", b"upgrade", b"expect", b"proxy-authorization", b"accept-encoding"}
)
_ANSWERED: Final = (
    b"Content-Type",
    b"Content-Encoding",
    b"WWW-Authenticate",
    b"Retry-After",
    b"Cache-Control",
)
# By these a reverse proxy says that the address we see is its own, not the publisher's.
_FORWARDED: Final = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
# These give events at once; files alone do not, and are not asked about.
_OF_RECORDS: Final = frozenset({Operation.PUBLISH, Operation.RETRACT, Operation.DELETE})


class Index(Protocol):
    """The real index (``sources.index_client.IndexClient``)."""

    base_url: str
    ask: Callable[..., Deferred[Answer]]


class Taker(Protocol):
    """Whoever takes sightings (``tracking.event_intake.Intake``)."""

    def see(self, sightings: Sequence[Sighting], *, is_quiet: bool = False) -> Deferred[None]:
        """Take them, and fire when they are on the disk."""

    def missing(self, sightings: Sequence[Sighting]) -> Deferred[list[Sighting]]:
        """Fire with those of which the index should be asked first."""


class Questions(Protocol):
    """Questions to the index (``tracking.index_questions.IndexQuestions``)."""

    def before(self, sightings: Sequence[Sighting]) -> Deferred[list[Sighting]]:
        """Fire with what the index knows of them."""


@attrs.define
class ProxyCounts:
    """
    What the proxy has done since it started.

    ``calls``: handed on; ``succeeded``: calls of ``ws`` that the index did; ``sightings``: remembered of them;
    ``refused``: clients from elsewhere; ``unreachable``: the index gave no answer; ``unread``: parts of calls that name
    nothing known; ``unrecorded``: done by the index, and not on our disk; ``unasked``: the index did not say beforehand
    what it was about to forget.
    """

    calls: int = 0
    succeeded: int = 0
    sightings: int = 0
    refused: int = 0
    unreachable: int = 0
    unread: int = 0
    unrecorded: int = 0
    unasked: int = 0


class IndexProxy(Resource):
    """
    All of ``/esg-search``.

    Args:
        index: the real one.
        taker: of what was seen.
        questions: to the same index.
        publishers: networks whose clients may come, such as ``10.1.0.0/16``.
        clock: the reactor, or a Clock in tests.
        now_ms: Unix milliseconds.
        run: runs a function in a thread.
    """

    isLeaf = True
    body_bytes = BODY_BYTES
    log = Logger()

    def __init__(
        self,
        index: Index,
        taker: Taker,
        questions: Questions,
        publishers: Iterable[str],
        clock: Any,
        now_ms: Callable[[], int],
        run: Callable[[Callable[[], Any], Any], Deferred[Any]] = in_thread,
    ) -> None:
        super().__init__()
        self._index: Final = index
        self._taker: Final = taker
        self._questions: Final = questions
        self._networks: Final = [ipaddress.ip_network(one) for one in publishers]
        self._clock: Final = clock
        self._now_ms: Final = now_ms
        self._run = run
        self._under_way = 0
        self.counts: Final = ProxyCounts()
        # Empty: all is well; else one line for the operator.
        self.fault = ""

    def refuses(self, address: str) -> Problem | None:
        """Return what is said to a client that may not come; None: it may."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            found = None
        found = getattr(found, "ipv4_mapped", None) or found
        if found is not None and any(found in network for network in self._networks):
            return None
        self.counts.refused += 1
        return Problem(
            403, "publishers are not taken from this address; see tracking.publishers in node.toml"
        )

    def _refuses_forwarded(self, request: Request) -> Problem | None:
        # Whoever it is let through for, its address says nothing of it.
        for name in _FORWARDED:
            if request.requestHeaders.hasHeader(name):
                self.counts.refused += 1
                return Problem(
                    403,
                    f"this came through a reverse proxy ({name}), so nobody can tell whether a publisher sent it; let "
                    "publishers come to tracking.listen itself, and forward only /unsubscribe, /preferences, /list, /events",
                )
        return None

    def render(self, request: Request) -> Any:
        """Hand on a call."""
        problem = (
            self.refuses(str(getattr(request.getClientAddress(), "host", "")))
            or self._refuses_forwarded(request)
            or _misplaced(request)
        )
        if problem is None and self._under_way >= CALLS:
            problem = Problem(503, "too many calls at a time; try again", {"Retry-After": str(RETRY_AFTER_S)})
        if problem is not None:
            return send_problem(request, problem)
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        self._under_way += 1
        handing = self._handed_on(request)
        handing.addBoth(self._ended)
        handing.addErrback(self._failed)
        # A publisher that hung up has had its call done all the same.
        handing.addCallback(lambda body: None if gone else request.send(_body(request, body)))
        handing.addErrback(lambda failure: self.log.failure("No answer to a publisher", failure))
        return NOT_DONE_YET

    def _ended(self, result: Any) -> Any:
        self._under_way -= 1
        return result

    @inlineCallbacks
    def _handed_on(self, request: Request) -> Any:
        path, _, query = request.uri.partition(b"?")
        body = request.content.getvalue()
        name = (_PATHS.fullmatch(path) or [b"", b""])[1] or b""
        read = partial(read_call, name.decode("ascii"), query, body, self._now_ms())
        call = (yield self._run(read, self._clock)) if len(body) > LARGE_BYTES else read()
        yield self._ask_before(call)
        self.counts.calls += 1
        answer = yield self._index.ask(
            request.method,
            request.uri,
            _handed_fields(request),
            body,
            INDEX_S,
            ANSWER_BYTES if name else SEARCH_BYTES,
        )
        if name and is_success(answer.status, answer.body):
            self.counts.succeeded += 1
            self.counts.unread += call.unread
            yield self._remember(call)
        return self._answer(request, answer)

    @inlineCallbacks
    def _ask_before(self, call: Call) -> Any:
        wanted = [one for one in call.sightings if one.operation in _OF_RECORDS]
        if not wanted:
            return
        try:
            missing = yield self._taker.missing(wanted).addTimeout(DISK_S, self._clock)
            if missing:
                known = yield self._questions.before(missing)
                yield self._taker.see(known, is_quiet=True).addTimeout(DISK_S, self._clock)
        except Exception as error:  # noqa: BLE001 - whatever it is, the publisher's call goes on
            self.counts.unasked += 1
            self.log.warn("The index was not asked before it was told: {reason}", reason=_line(error))

    @inlineCallbacks
    def _remember(self, call: Call) -> Any:
        if not call.sightings:
            return
        now_ms = self._now_ms()
        seen = [attrs.evolve(one, occurred_ms=now_ms) for one in call.sightings]
        fault = ""
        try:
            yield self._taker.see(seen).addTimeout(DISK_S, self._clock)
            self.counts.sightings += len(seen)
        except Exception as error:  # noqa: BLE001 - the index has done it, so the publisher must hear that
            self.counts.unrecorded += len(seen)
            fault = f"what the index did is not on this node's disk: {_line(error)}"
        if fault and fault != self.fault:
            self.log.error("{fault}; the next look through the index finds it", fault=fault)
        self.fault = fault

    def _answer(self, request: Request, answer: Answer) -> bytes:
        request.setResponseCode(answer.status)
        for name in _ANSWERED:
            for value in answer.fields.getRawHeaders(name) or ():
                request.responseHeaders.addRawHeader(name, value)
        base = self._index.base_url.encode("ascii")
        for place in (answer.fields.getRawHeaders(b"Location") or ())[:1]:
            # Back through this port, not past it.
            request.setHeader(b"Location", place[len(base) :] if place.startswith(base + b"/") else place)
        return answer.body

    def _failed(self, failure: Failure) -> Problem:
        self.counts.unreachable += 1
        error = failure.value
        if not isinstance(error, IndexUnreachable):
            self.log.failure("A call could not be handed on", failure)
            return Problem(500, "internal error; the daemon's log says more")
        self.log.warn("The index gave no answer: {reason}", reason=str(error))
        what = "It may have done it" if error.is_late else "Try again later"
        return Problem(504 if error.is_late else 502, f"the index gave no answer: {error}. {what}")


def _misplaced(request: Request) -> Problem | None:
    found = _PATHS.fullmatch(request.uri.partition(b"?")[0])
    if found is None or not _TARGET.fullmatch(request.uri):
        return Problem(404, "of an index only /esg-search/search and /esg-search/ws are handed on")
    allowed = "GET, POST" if found[1] else "GET"
    if request.method.decode("latin-1") not in allowed.split(", "):
        return Problem(405, f"only {allowed} here", {"Allow": allowed})
    return None


def _handed_fields(request: Request) -> dict[bytes, Sequence[bytes]]:
    named = b",".join(request.requestHeaders.getRawHeaders(b"Connection") or ()).lower()
    ours = _OURS | {one.strip() for one in named.split(b",")}
    return {
        name: many for name, many in request.requestHeaders.getAllRawHeaders() if name.lower() not in ours
    }


def _body(request: Request, answer: bytes | Problem) -> bytes:
    return bytes(send_problem(request, answer)) if isinstance(answer, Problem) else answer


def _line(error: BaseException) -> str:
    if isinstance(error, TookTooLongError):
        return "the disk takes too long"
    return " ".join(str(error).split())[:200] or type(error).__name__
