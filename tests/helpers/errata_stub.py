"""A stand-in for the errata service, with its paths, its spelling and its ways."""

from __future__ import annotations

import json
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

UID = "6838a44b-0000-4000-8000-000000000001"


def an_issue(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Make an issue as the service gives it; times are UTC without a zone, with microseconds."""
    return {
        "uid": f"{UID[:-4]}{number:04d}",
        "project": "cmip6",
        "institute": "ipsl",
        "title": "Wrong units of clt",
        "description": "In percent, not in 1.",
        "severity": "high",
        "status": "new",
        "moderationStatus": "accepted",
        "createdBy": "somebody",
        "createdDate": "2026-07-01 10:00:00.123456",
        "updatedBy": None,
        "updatedDate": None,
        "closedDate": None,
        "datasets": [f"CMIP6.CMIP.IPSL.IPSL-CM6A-LR.1pctCO2.r1i1p1f1.3hr.v{number}.gr#20180605"],
        "materials": [],
        "urls": [],
        "facets": ["esdoc:errata:severity:high"],
    } | changes


class ErrataStub(Resource):
    """Issues by uid in ``issues``; ``asked`` holds what was asked; ``ways`` by path what else is answered."""

    isLeaf = True

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self.issues: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.ways: dict[str, Any] = {}
        self._port = reactor.listenTCP(0, Site(self, reactor=reactor), interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}"

    def put(self, *issues: dict[str, Any]) -> None:
        """Keep issues, in place of those with their uid."""
        self.issues.update((one["uid"], one) for one in issues)

    @property
    def retrieved(self) -> list[str]:
        """The uids that were asked for since the last look at this."""
        found = [one.rpartition("=")[2] for one in self.asked if "/retrieve?" in one]
        self.asked.clear()
        return found

    def render_GET(self, request: Any) -> Any:
        """Answer as the service does: names in camel case, rows without names."""
        self.asked.append(request.uri.decode())
        path = request.path.decode()
        uid = request.args.get(b"uid", [b""])[0].decode()
        way = self.ways.get(uid) or self.ways.get(path)
        if way is not None:
            return way(request)
        request.setHeader(b"Content-Type", b"application/json; charset=utf-8")
        if path == "/2/publication/retrieve":
            if uid not in self.issues:
                request.setResponseCode(500)
                return b'{"errorCode": 999}'
            return json.dumps({"issue": self.issues[uid]}).encode()
        assert path == "/2/search/errata"
        severity = request.args[b"criteria"][0].decode().rpartition(":")[2]
        public = [
            one for one in self.issues.values() if one["moderationStatus"] in ("accepted", "not-required")
        ]
        rows = [
            [
                *(one[name] for name in ("project", "institute", "uid", "title", "severity", "status")),
                *((one[name] or "")[:10] or None for name in ("createdDate", "closedDate", "updatedDate")),
                one["moderationStatus"],
            ]
            for one in public
            if one["severity"] == severity
        ]
        return json.dumps({"count": len(rows), "results": rows, "total": len(self.issues)}).encode()


def answers(code: int, body: bytes = b"", **fields: str) -> Any:
    """Make a way that answers so."""

    def way(request: Any) -> bytes:
        request.setResponseCode(code)
        for name, text in fields.items():
            request.setHeader(name, text)
        return body

    return way


def says_nothing(_request: Any) -> int:
    """Answer never."""
    return NOT_DONE_YET
