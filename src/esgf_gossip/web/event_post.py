"""
``POST /events``: a publisher, or whoever forwards for it, hands in STAC messages.

What is answered with 202 is on the disk. The site this page hangs in bounds bodies by ``body_bytes`` and asks
``refuses`` before it reads a large one. Source: docs/tracking.md, "By HTTP".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from esgf_gossip.tracking.database import TrackingError
from esgf_gossip.tracking.sightings import Sighting
from esgf_gossip.tracking.stac_feed import DOCUMENT_BYTES, MESSAGES
from esgf_gossip.tracking.stac_items import StacError
from esgf_gossip.views.node_json import json_bytes
from esgf_gossip.web.bearer_tokens import BearerTokens, TokensError
from esgf_gossip.web.problems import Problem, Refused
from esgf_gossip.web.resources import RETRY_AFTER_S, send_problem

# The most that a body may have.
BODY_BYTES: Final = DOCUMENT_BYTES
# Documents in hand at once: each may be megabytes, and the disk takes them one after the other.
AT_ONCE: Final = 8
AUTHORIZATION_CHARACTERS: Final = 1024

_TYPES: Final = frozenset(
    {
        "application/json",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/geo+json",
    }
)
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="esgf-gossip events"'}
_LATER: Final = {"Retry-After": str(RETRY_AFTER_S)}


class EventPost(Resource):
    """
    The page.

    Args:
        tokens: who may hand in.
        read: makes sightings of a body (``EventReader.read``).
        see: takes them; fires when they are on the disk.

    ``taken`` counts sightings, ``refused`` requests by status; ``fault`` says what an operator must mend, or "".
    """

    isLeaf = True
    body_bytes = BODY_BYTES
    log = Logger()

    def __init__(
        self,
        tokens: BearerTokens,
        read: Callable[[bytes], Deferred[list[Sighting]]],
        see: Callable[[Sequence[Sighting]], Deferred[None]],
    ) -> None:
        super().__init__()
        self.taken = 0
        self.refused: Final[dict[int, int]] = {}
        self.fault = ""
        self._tokens: Final = tokens
        self._read: Final = read
        self._see: Final = see
        self._in_hand = 0

    def refuses(self, address: str) -> Problem | None:  # noqa: ARG002 - the site's own signature
        """Return what is said to whoever would send a large body now; None: it may come."""
        if self._in_hand >= AT_ONCE:
            return Problem(503, f"{AT_ONCE} others are handing in events; try again", _LATER)
        try:
            self._tokens.check()
        except TokensError as error:
            return self._unusable(error)
        return None

    def render(self, request: Request) -> Any:
        """Judge the request, then take what it brings; answers when that is done."""
        try:
            body = self._judged(request)
        except Refused as refusal:
            return self._refuse(request, refusal.problem)
        is_open = [True]
        request.notifyFinish().addErrback(lambda _: is_open.clear())
        self._in_hand += 1
        taking = self._taken(body)
        taking.addBoth(self._answer, request, is_open)
        taking.addErrback(lambda failure: self.log.failure("No answer to POST /events", failure))
        return NOT_DONE_YET

    def _judged(self, request: Request) -> bytes:
        if request.method != b"POST":
            raise Refused(Problem(405, "only POST here: events are handed in, not read", {"Allow": "POST"}))
        self._admit(request)
        declared = (request.getHeader("content-type") or "").partition(";")[0].strip().lower()
        if declared not in _TYPES:
            raise Refused(
                Problem(
                    415, "send Content-Type: application/json, or application/x-ndjson for one message a line"
                )
            )
        if (request.getHeader("content-encoding") or "identity").strip().lower() != "identity":
            raise Refused(Problem(415, "send the body as it is, without Content-Encoding"))
        body: bytes = request.content.read(BODY_BYTES + 1)
        if len(body) > BODY_BYTES:
            raise Refused(
                Problem(413, f"more than {BODY_BYTES} bytes; send at most {MESSAGES} messages at a time")
            )
        if self._in_hand >= AT_ONCE:
            raise Refused(Problem(503, f"{AT_ONCE} others are handing in events; try again", _LATER))
        return body

    def _admit(self, request: Request) -> None:
        scheme, _, token = (request.getHeader("authorization") or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip() or len(token) > AUTHORIZATION_CHARACTERS:
            raise Refused(Problem(401, "send Authorization: Bearer and a token of this node", _CHALLENGE))
        try:
            is_known = self._tokens.accepts(token.strip())
        except TokensError as error:
            raise Refused(self._unusable(error)) from None
        self._note("")
        if not is_known:
            raise Refused(Problem(403, "this node does not know the token; ask its administrator for one"))

    def _unusable(self, error: TokensError) -> Problem:
        self._note(str(error))
        return Problem(503, "this node can take nobody's events now; its log says why", _LATER)

    def _taken(self, body: bytes) -> Deferred[int]:
        def seen(sightings: list[Sighting]) -> Any:
            # Nothing to see is nothing to wait for.
            return self._see(sightings).addCallback(lambda _: len(sightings)) if sightings else 0

        return self._read(body).addCallback(seen)

    def _answer(self, result: int | Failure, request: Request, is_open: list[bool]) -> None:
        self._in_hand -= 1
        problem = None
        if not isinstance(result, Failure):
            self.taken += result
        elif result.check(StacError):
            problem = Problem(400, f"{result.value}; nothing was taken")
        elif result.check(TrackingError):
            problem = Problem(503, "the events could not be written down; send them again", _LATER)
            self.log.error("Events by HTTP were not taken: {reason}", reason=str(result.value))
        else:
            problem = Problem(500, "internal error; the daemon's log says more")
            self.log.failure("Events by HTTP were not taken", result)
        if problem is not None and not is_open:
            self._count(problem)
        elif problem is not None:
            self._send(request, self._refuse(request, problem))
        elif is_open:
            request.setResponseCode(202)
            request.setHeader("Content-Type", "application/json")
            self._send(request, json_bytes({"sightings": result}))

    def _refuse(self, request: Request, problem: Problem) -> bytes:
        self._count(problem)
        return send_problem(request, problem)

    def _count(self, problem: Problem) -> None:
        self.refused[problem.status] = self.refused.get(problem.status, 0) + 1

    def _send(self, request: Request, body: bytes) -> None:
        request.setHeader("Content-Length", str(len(body)))
        request.write(body)
        request.finish()

    def _note(self, fault: str) -> None:
        if fault and fault != self.fault:
            self.log.error("No events are taken by HTTP: {reason}", reason=fault)
        self.fault = fault
