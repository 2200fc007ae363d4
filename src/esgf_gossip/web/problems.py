"""
Errors as RFC 9457 problem documents, the only form in which this service says no.

Nothing here looks at a request. A problem says what is wrong and what to do,
never a traceback: that is in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import attrs

from esgf_gossip.views.node_json import json_bytes

CONTENT_TYPE: Final = "application/problem+json"


@attrs.frozen
class Problem:
    """One refusal: status code, one line for a person, further response headers."""

    status: int
    detail: str
    headers: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def title(self) -> str:
        """The phrase of the status code, as RFC 9457 wants it beside ``about:blank``."""
        return HTTPStatus(self.status).phrase

    def body(self) -> bytes:
        """Return the document."""
        return json_bytes(
            {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        )


class Refused(Exception):  # noqa: N818 - an answer to the client, not an error of the program
    """Leave the making of an answer with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem: Final = problem
