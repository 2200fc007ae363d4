"""Style, script and map as they were shipped: read once, sent as they are."""

from __future__ import annotations

import importlib.resources
from typing import Any, Final

from twisted.web.http import Request
from twisted.web.resource import IResource

from esgf_gossip.web.kept import KeptDocument
from esgf_gossip.web.problems import Refused
from esgf_gossip.web.resources import MISSING, Page, send_document

STATIC: Final = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "world.svg": "image/svg+xml",
    "world.LICENSE": "text/plain; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class StaticFolder(Page):
    """``/static/<name>``: style, script and map, as they were shipped."""

    def __init__(self) -> None:
        super().__init__()
        folder = importlib.resources.files(__package__) / "static"
        self._pages: Final = {
            name: StaticPage(KeptDocument((folder / name).read_bytes(), kind))
            for name, kind in STATIC.items()
        }

    def answer(self, request: Request) -> Any:  # noqa: ARG002 - Twisted's own signature
        """Refuse the folder itself."""
        raise Refused(MISSING.problem)

    def getChild(self, path: bytes, request: Request) -> IResource:  # noqa: ARG002 - Twisted's own signature
        """Find a file that is shipped; no other name is looked for on the disk."""
        return self._pages.get(path.decode("ascii", "replace"), MISSING)


class StaticPage(Page):
    """One file that was shipped."""

    def __init__(self, document: KeptDocument) -> None:
        super().__init__()
        self._document = document

    def answer(self, request: Request) -> bytes:
        """Send the file."""
        return send_document(request, self._document)
