"""
The errata service of ES-DOC: which issues there are, and one issue with all datasets it names.

Only asking, by HTTP GET, within bounds of time and size; no redirect is followed. What an issue means is
``tracking.errata``'s work. Source: docs/tracking.md, "Errata".
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

import attrs
from twisted.internet.defer import Deferred, TimeoutError, inlineCallbacks  # noqa: A004 - addTimeout's own
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers

from esgf_gossip.sources.gauge import SourceError

# The largest issue known names 2,747 datasets in a quarter of a megabyte.
ISSUE_BYTES: Final = 16 * 1024 * 1024
LIST_BYTES: Final = 16 * 1024 * 1024
ISSUES: Final = 50_000
CONNECT_S: Final = 15.0
ANSWER_S: Final = 120.0
SEVERITIES: Final = ("low", "medium", "high", "critical")
UID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_HEADERS: Final = {"User-Agent": ["esgf-gossip"], "Accept": ["application/json"]}
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_FAILURES: Final = (
    ConnectError,
    ConnectingCancelledError,
    DNSLookupError,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
    TimeoutError,
)


class IssueNotGivenError(SourceError):
    """Report that the service answers, but not with what was asked for: the next question may do better."""


@attrs.frozen
class Listed:
    """
    An issue as a list of the service names it.

    ``mark``: what the list says of it, as one text; another one is an issue that changed. ``changed_ms``: the day by
    which the list dates it last, Unix milliseconds; 0: none.
    """

    uid: str
    mark: str
    changed_ms: int


class ErrataService:
    """
    The service at one address.

    Args:
        url: of it, without a slash at its end.
        reactor: clock and connections.
        policy: whom TLS trusts; the system's authorities by default.
    """

    def __init__(self, url: str, reactor: Any, policy: Any = None) -> None:
        self.url: Final = url.rstrip("/")
        self._reactor: Final = reactor
        self._agent: Final = Agent(reactor, policy or BrowserLikePolicyForHTTPS(), CONNECT_S)

    def listed(self, severity: str) -> Deferred[list[Listed]]:
        """Fire with the public issues of one severity; fail with a SourceError."""
        asked = urlencode({"criteria": f"esdoc:errata:severity:{severity}"}, safe=":")
        return self._asked(f"/2/search/errata?{asked}", LIST_BYTES).addCallback(_read_list)

    def issue(self, uid: str) -> Deferred[Any]:
        """Fire with the JSON value of one issue; fail with a SourceError."""
        return self._asked(f"/2/publication/retrieve?{urlencode({'uid': uid})}", ISSUE_BYTES)

    def _asked(self, path: str, most_bytes: int) -> Deferred[Any]:
        asking = self._answer(path, most_bytes)
        asking.addTimeout(ANSWER_S, self._reactor)
        return asking.addErrback(self._explained)

    @inlineCallbacks
    def _answer(self, path: str, most_bytes: int) -> Iterator[Any]:
        response = yield self._agent.request(b"GET", f"{self.url}{path}".encode("ascii"), Headers(_HEADERS))
        body = _Body(most_bytes)
        response.deliverBody(body)
        if response.code != 200:
            body.leave()
            hint = ""
            if 300 <= response.code < 400:
                hint = "; no redirect is followed: write the address it leads to as tracking.errata"
            raise IssueNotGivenError(f"{self.url} answers {path} with status {response.code}{hint}")
        content = yield body.whole
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise IssueNotGivenError(f"{self.url} answers {path} with something that is no JSON") from None

    def _explained(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, SourceError):
            raise error
        if isinstance(error, _TooLongError):
            raise IssueNotGivenError(f"{self.url} answers with more than {error.most_bytes} bytes") from None
        if isinstance(error, _CutOffError):
            raise SourceError(f"[tracking] errata: {self.url} broke off its answer") from None
        if isinstance(error, _FAILURES):
            reasons = getattr(error, "reasons", None)
            if reasons:
                error = reasons[0].value
            text = " ".join(str(error).split())[:200]
            raise SourceError(
                f"[tracking] errata: {self.url} cannot be asked: {text or type(error).__name__}"
            ) from None
        failure.raiseException()


class _TooLongError(Exception):
    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self.most_bytes: Final = most_bytes


class _CutOffError(Exception):
    pass


class _Body(Protocol):
    """Collects a body of bounded size; ``whole`` fires with it."""

    def __init__(self, most_bytes: int) -> None:
        self.whole: Final[Deferred[bytes]] = Deferred(lambda _: self.leave())
        self._most_bytes: Final = most_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._is_left = False

    def dataReceived(self, data: bytes) -> None:
        """Take a part."""
        self._size += len(data)
        if self._is_left:
            return
        if self._size > self._most_bytes:
            self.leave()
            self._done(Failure(_TooLongError(self._most_bytes)))
        else:
            self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell what came of it; a body without a length that ends is none: it may be half."""
        self._done(b"".join(self._parts) if reason.check(ResponseDone) else Failure(_CutOffError()))

    def leave(self) -> None:
        """Hang up and forget what came."""
        self._is_left = True
        self._parts = []
        if self.transport is not None:
            # The transport of a body may only pause and stop.
            self.transport.loseConnection()

    def _done(self, result: Any) -> None:
        if not self.whole.called:
            self.whole.callback(result)


def _read_list(answer: Any) -> list[Listed]:
    """Read a list of issues: each a row of columns, or an object; only what is found in it by its form counts."""
    rows = answer.get("results") if type(answer) is dict else None
    if type(rows) is not list or len(rows) > ISSUES:
        raise IssueNotGivenError(f"the errata service gives no list of at most {ISSUES} issues")
    found = []
    for row in rows:
        values = list(row.values()) if type(row) is dict else row
        words = [one for one in values if type(one) is str] if type(values) is list else []
        uid = next((one for one in words if UID.fullmatch(one)), None)
        if uid is not None:
            mark = json.dumps(row, sort_keys=True)
            found.append(Listed(uid.lower(), mark[:4000], max(map(_day_ms, words), default=0)))
    return found


def _day_ms(text: str) -> int:
    if not _DATE.match(text[:10]):
        return 0
    try:
        day = dt.datetime.fromisoformat(text[:10]).replace(tzinfo=dt.UTC)
    except ValueError:
        return 0
    return max(int(day.timestamp() * 1000), 0)
