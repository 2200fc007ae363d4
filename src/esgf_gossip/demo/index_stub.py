"""
An index on loopback that behaves as ``esg-search``: for the demo, tests and campaigns, where no real one may be asked.

It stores records, searches them, and takes ``publish``, ``update``, ``retract`` and ``delete``; a retraction deletes
the records of the files and leaves the time stamp alone, as the real one does. What came is kept, byte for byte.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import attrs
from defusedxml.ElementTree import fromstring
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from esgf_gossip.tracking.record_fields import documents
from esgf_gossip.trust.web_tls import HostCertificate

_BOOLEANS: Final = {"replica": "false", "latest": "true", "retracted": "false"}
_SINGLE: Final = frozenset(
    {"id", "master_id", "instance_id", "version", "type", "title", "dataset_id", "data_node", "index_node"}
    | {"size", "_timestamp", "number_of_files", *_BOOLEANS}
)
_NO_FIELDS: Final = frozenset(
    {"type", "fields", "limit", "offset", "from", "to", "format", "distrib", "facets", "query"}
)
_ANSWER: Final = '<?xml version="1.0" encoding="UTF-8"?><response status="{status}"><message>{message}</message></response>'


@attrs.frozen
class Received:
    """One request as it came."""

    method: str
    target: str
    content_type: str | None
    body: bytes = attrs.field(repr=False)
    agent: str = ""

    @property
    def call(self) -> str:
        """The last part of its path."""
        return self.target.partition("?")[0].rstrip("/").rpartition("/")[2]


class IndexStub(Resource):
    """
    The index.

    Args:
        now: the time of its records' stamps, RFC 3339.
        is_strict: whether XML that is none is refused, as by the real one; else it is read with patience.

    ``received``: requests in order. ``interfere``: is asked of each request first; it may return status and body to
    answer in place of the index, or NOT_DONE_YET to leave it hanging.
    """

    isLeaf = True

    def __init__(self, now: Callable[[], str] | None = None, *, is_strict: bool = True) -> None:
        super().__init__()
        self._now: Final = now or (lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        self._is_strict: Final = is_strict
        self.records: Final[dict[str, dict[str, list[str]]]] = {}
        self.received: Final[list[Received]] = []
        self.interfere: Callable[[Received], Any] = lambda _: None
        self._port: Any = None

    # ----------------------------------------------------------------- serving

    def listen(
        self, reactor: Any, certificate: Path | None = None, key: Path | None = None, port: int = 0
    ) -> str:
        """Listen on loopback, HTTPS where there is a certificate; return the base URL."""
        site = Site(self)
        site.noisy = False
        factory = site
        if certificate is not None and key is not None:
            factory = TLSMemoryBIOFactory(HostCertificate(certificate, key), False, site)
        self._port = reactor.listenTCP(port, factory, interface="127.0.0.1")
        return f"http{'' if factory is site else 's'}://127.0.0.1:{self._port.getHost().port}"

    def close(self) -> Any:
        """Listen no more."""
        port, self._port = self._port, None
        return None if port is None else port.stopListening()

    def render(self, request: Request) -> Any:
        """Answer."""
        body = request.content.read()
        received = Received(
            request.method.decode("ascii"),
            request.uri.decode("latin-1"),
            request.getHeader("Content-Type"),
            body,
            request.getHeader("User-Agent") or "",
        )
        self.received.append(received)
        found = self.interfere(received)
        if found is NOT_DONE_YET:
            return NOT_DONE_YET
        if found is None:
            found = self._answered(received, parse_qs(request.uri.decode("latin-1").partition("?")[2]))
        status, answer, *rest = found
        request.setResponseCode(status)
        request.setHeader("Content-Type", rest[0] if rest else "text/xml;charset=UTF-8")
        return answer

    def _answered(
        self, received: Received, query: Mapping[str, list[str]]
    ) -> tuple[int, bytes] | tuple[int, bytes, str]:
        if received.call == "search":
            return 200, self.search(query), "application/json;charset=UTF-8"
        calls: dict[str, Callable[[], str]] = {
            "publish": lambda: self._publish(received.body),
            "update": lambda: self._update(received.body),
            "retract": lambda: self._end(received.body, query, is_deleted=False),
            "delete": lambda: self._end(received.body, query, is_deleted=True),
        }
        if "/ws/" not in received.target or received.call not in calls:
            return 404, b"not found"
        try:
            message = calls[received.call]()
        except (ET.ParseError, KeyError, ValueError) as error:
            return 400, _ANSWER.format(status="error", message=type(error).__name__).encode()
        return 200, _ANSWER.format(status="success", message=message).encode()

    # ----------------------------------------------------------------- what it does

    def search(self, query: Mapping[str, list[str]]) -> bytes:
        """Answer a search with JSON as Solr's."""
        kind = query.get("type", ["Dataset"])[0]
        wanted = {name: set(values) for name, values in query.items() if name not in _NO_FIELDS}
        begin, end = query.get("from", [""])[0], query.get("to", ["~"])[0]
        found = [
            record
            for record in self.records.values()
            if record["type"][0] == kind
            and begin <= record["_timestamp"][0] <= end
            and all(set(record.get(name, ())) & values for name, values in wanted.items())
        ]
        offset, limit = (
            int(query.get(name, [default])[0]) for name, default in (("offset", "0"), ("limit", "10"))
        )
        fields = query.get("fields", ["*"])[0].split(",")
        documents = [_shown(record, fields) for record in found[offset : offset + limit]]
        response = {"numFound": len(found), "start": offset, "docs": documents}
        return json.dumps({"responseHeader": {"status": 0, "QTime": 1}, "response": response}).encode()

    def _publish(self, body: bytes) -> str:
        count = 0
        for record in self._documents(body):
            name = record["id"][0]
            record.setdefault("type", ["File" if "dataset_id" in record else "Dataset"])
            for flag, default in _BOOLEANS.items():
                record[flag] = [record.get(flag, [default])[0].lower()]
            record["_timestamp"] = [self._now()]
            self.records[name] = record
            count += 1
        return f"Published {count} records"

    def _documents(self, body: bytes) -> Iterator[dict[str, list[str]]]:
        if not self._is_strict:
            for fields in documents(body.decode("utf-8", "replace")):
                yield {name: list(values) for name, values in fields.items()}
            return
        root = fromstring(body)
        for document in [root] if root.tag == "doc" else root.iter("doc"):
            record: dict[str, list[str]] = {}
            for field in document.iter("field"):
                record.setdefault(field.attrib["name"], []).append((field.text or "").strip())
            yield record

    def _update(self, body: bytes) -> str:
        root = fromstring(body)
        count = 0
        for update in root.iter("update"):
            name, _, wanted = (update.findtext("query") or "").partition("=")
            for record in self.records.values():
                if wanted in record.get(name, ()):
                    count += 1
                    for field in update.iter("field"):
                        record[field.attrib["name"]] = [one.text or "" for one in field.iter("value")]
        return f"Updated {count} records"

    def _end(self, body: bytes, query: Mapping[str, list[str]], *, is_deleted: bool) -> str:
        names = [*query.get("id", ()), *parse_qs(body.decode("ascii")).get("id", ())]
        if not names:
            raise ValueError("no id")
        for name in names:
            for file in [one for one, record in self.records.items() if name in record.get("dataset_id", ())]:
                del self.records[file]
            if is_deleted:
                self.records.pop(name, None)
            elif name in self.records:
                # The time stamp stays.
                self.records[name].update(retracted=["true"], latest=["false"])
        return f"{'Deleted' if is_deleted else 'Retracted'} {len(names)} records"


def _shown(record: Mapping[str, list[str]], fields: list[str]) -> dict[str, Any]:
    def plain(name: str, text: str) -> Any:
        if name in _BOOLEANS:
            return text == "true"
        return int(text) if name == "size" and text.isdigit() else text

    return {
        name: plain(name, values[0]) if name in _SINGLE else list(values)
        for name, values in record.items()
        if name in fields or "*" in fields
    }
