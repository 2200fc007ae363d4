"""What the control socket is asked of notifications: how they stand, what was done, to hold, release, export, erase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from esgf_gossip.esgf.openids import OPENID_CHARACTERS
from esgf_gossip.tracking.database import TrackingError
from esgf_gossip.tracking.downloads import DownloadsError
from esgf_gossip.tracking.holds import HoldError
from esgf_gossip.tracking.projecting import StoppedError
from esgf_gossip.web.control_answers import CommandError

LINES_MOST: Final = 10_000
# The longest is an OpenID.
WHO_CHARACTERS: Final = OPENID_CHARACTERS
OFF: Final = "no notifications are made here; set tracking.smtp and tracking.sender in node.toml and restart"


class Notifications(Protocol):
    """What administrators ask of mailing; see ``tracking.mail_desk``."""

    def status(self) -> Mapping[str, Any]:
        """Return counts and the fault if any."""

    def changes(self, most: int) -> Deferred[Any]:
        """Fire with the changes users were matched with."""

    def hold(self, change: str, who: str) -> Deferred[Any]:
        """Hold a change."""

    def release(self, change: str, who: str) -> Deferred[Any]:
        """Release it, or ask for that."""

    def preview(self, change: str, to: str) -> Deferred[Any]:
        """Fire with the mail about a change."""

    def log(self, change: str, person: str, most: int) -> Deferred[Any]:
        """Fire with lines of the audit."""

    def export(self, who: str) -> Deferred[Any]:
        """Fire with all that is known of a person."""

    def erase(self, who: str) -> Deferred[Any]:
        """Erase it; fire with counts."""


class NotifyAnswers:
    """
    Answers of what ``notifications`` returns when a command comes; ``by_command`` maps each command to what answers it.

    Args:
        notifications: returns them, or None where they are off.
    """

    def __init__(self, notifications: Callable[[], Notifications | None]) -> None:
        self._notifications = notifications
        self.by_command: Final[Mapping[str, Callable[[Mapping[str, Any]], Any]]] = {
            "notify-status": self._asking(lambda desk, _fields: desk.status()),
            "notify-list": self._asking(lambda desk, fields: desk.changes(_number(fields, "limit", 100))),
            "notify-preview": self._asking(
                lambda desk, fields: desk.preview(_text(fields, "change"), _text(fields, "to", needed=False))
            ),
            "notify-hold": self._asking(
                lambda desk, fields: desk.hold(_text(fields, "change"), _text(fields, "who"))
            ),
            "notify-release": self._asking(_release),
            "notify-log": self._asking(
                lambda desk, fields: desk.log(
                    _text(fields, "change", needed=False),
                    _text(fields, "person", needed=False),
                    _number(fields, "limit", 1000),
                )
            ),
            "notify-export": self._asking(lambda desk, fields: desk.export(_text(fields, "person"))),
            "notify-erase": self._asking(_erase),
        }

    def _asking(
        self, ask: Callable[[Notifications, Mapping[str, Any]], Any]
    ) -> Callable[[Mapping[str, Any]], Deferred[Any]]:
        def answer(fields: Mapping[str, Any]) -> Deferred[Any]:
            desk = self._notifications()
            if desk is None:
                raise CommandError(OFF)
            return maybeDeferred(ask, desk, fields).addErrback(_explain)

        return answer


def _release(desk: Notifications, fields: Mapping[str, Any]) -> Deferred[Any]:
    _confirmed(fields, "releases mail to many people")
    return desk.release(_text(fields, "change"), _text(fields, "who"))


def _erase(desk: Notifications, fields: Mapping[str, Any]) -> Deferred[Any]:
    _confirmed(fields, "erases what cannot be brought back")
    return desk.erase(_text(fields, "person"))


def _explain(failure: Failure) -> None:
    failure.trap(HoldError, TrackingError, DownloadsError, StoppedError, CancelledError)
    error = failure.value
    if isinstance(error, StoppedError | CancelledError):
        raise CommandError("the daemon is being stopped; ask again when it runs") from None
    raise CommandError(str(error), is_missing=isinstance(error, HoldError) and error.is_missing)


def _confirmed(fields: Mapping[str, Any], why: str) -> None:
    if fields.get("confirm") is not True:
        raise CommandError(f"this {why}: send confirm = true with it")


def _text(fields: Mapping[str, Any], name: str, *, needed: bool = True) -> str:
    value = fields.get(name, "")
    if type(value) is not str or len(value) > WHO_CHARACTERS or (needed and not value.strip()):
        raise CommandError(f"{name} is a text of at most {WHO_CHARACTERS} characters")
    return value.strip()


def _number(fields: Mapping[str, Any], name: str, usual: int) -> int:
    value = fields.get(name, usual)
    if type(value) is not int or not 1 <= value <= LINES_MOST:
        raise CommandError(f"{name} is a number from 1 to {LINES_MOST}")
    return value
