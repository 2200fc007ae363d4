"""What is wrong with what was asked or said of datasets; without Twisted, for commands that only check."""

from __future__ import annotations

from typing import Final

MISSING: Final = 404
CONFLICT: Final = 409
FORBIDDEN: Final = 403
FAULTY: Final = 503


class DatasetError(Exception):
    """Refuse something about dataset events: what, and what to do, in one line. ``status``: what HTTP says of it."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status: Final = status
