"""
Documents kept ready to be sent: plain bytes, the same bytes in gzip, an ETag.

Nothing here knows HTTP requests or how a document is made. Compressing at each
request costs 24 times a request (measured), so it is done once, on first demand.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from collections.abc import Iterator
from typing import Final

import attrs

# Below this a gzip header eats what compression wins.
GZIP_FROM_BYTES: Final = 256
# As nginx and the measurement: level 6; higher levels win a few per cent for twice the time.
GZIP_LEVEL: Final = 6


@attrs.frozen
class KeptDocument:
    """
    One document, ready to be sent. Equal bytes have equal ETags on every node.

    Args:
        body: the document as it is.
        content_type: its media type, with a charset where it is text.
    """

    body: bytes = attrs.field(repr=False)
    content_type: str

    @functools.cached_property
    def gzip_body(self) -> bytes | None:
        """The body in gzip with time stamp 0, or None where it is not smaller."""
        if len(self.body) < GZIP_FROM_BYTES:
            return None
        packed = gzip.compress(self.body, compresslevel=GZIP_LEVEL, mtime=0)
        return packed if len(packed) < len(self.body) else None

    @functools.cached_property
    def etag(self) -> str:
        """The strong ETag of the plain body, quotes included."""
        return f'"{self._digest}"'

    @functools.cached_property
    def gzip_etag(self) -> str:
        """The ETag of the gzip body: a strong ETag names bytes, so it differs (RFC 9110, 8.8.3.3)."""
        return f'"{self._digest}-gzip"'

    @functools.cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


class KeptDocuments:
    """
    The documents at hand by name, such as ``registration.xml``.

    ``expected`` names those that will come: until then they are answered with
    503, not 404, so that no reader takes them for gone.
    """

    def __init__(self, expected: tuple[str, ...] = ("registration.xml",)) -> None:
        self._documents: dict[str, KeptDocument] = {}
        self._expected = expected

    def keep(self, name: str, body: bytes, content_type: str = "application/xml") -> KeptDocument:
        """Put or replace a document; equal content keeps the object and what was computed of it."""
        document = KeptDocument(body, content_type)
        kept = self._documents.setdefault(name, document)
        if kept != document:
            kept = self._documents[name] = document
        return kept

    def drop(self, name: str) -> None:
        """Forget a document; that there is none is no error."""
        self._documents.pop(name, None)

    def get(self, name: str) -> KeptDocument | None:
        """Return the document of that name, or None."""
        return self._documents.get(name)

    def body(self, name: str) -> bytes:
        """Return the plain bytes of the document of that name, none where there is no such document."""
        document = self.get(name)
        return b"" if document is None else document.body

    def is_known(self, name: str) -> bool:
        """Tell whether the name is served, be its document there already or not."""
        return name in self._documents or name in self._expected

    def __iter__(self) -> Iterator[str]:
        """Go through the names that are served, sorted."""
        return iter(sorted({*self._documents, *self._expected}))
