"""The desk for all that a node knows of a user: mails and downloads, asked for and erased together."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from twisted.internet.defer import Deferred, inlineCallbacks

from esgf_gossip.tracking.forgetting import OfOpenids
from esgf_gossip.tracking.mail_desk import MailDesk
from esgf_gossip.tracking.mailing import Mailing
from esgf_gossip.tracking.projecting import Projector


class UserDesk(MailDesk):
    """
    The desk of mailing, that knows of downloads and addresses too.

    Args:
        mailing: as of the desk.
        projector: of the downloads; None: there are none.
        also_erase: as of the desk.
        also_export: as of the desk.
        forget: lets go of the address of an OpenID, one that is just being asked for too.
    """

    def __init__(
        self,
        mailing: Mailing,
        projector: Projector | None,
        also_erase: OfOpenids,
        also_export: OfOpenids | None = None,
        forget: Callable[[str], Deferred[Any]] | None = None,
    ) -> None:
        super().__init__(mailing, also_export, also_erase)
        self._projector: Final = projector
        self._forget: Final = forget

    @inlineCallbacks
    def export(self, who: str) -> Generator[Any, Any, dict[str, Any]]:
        """Fire with all that is known of a person, downloads too."""
        told = yield super().export(who)
        if self._projector is not None:
            told["downloads"] = []
            for openid in told["openids"]:
                told["downloads"].append((yield self._projector.export(openid)))
        return told

    @inlineCallbacks
    def erase(self, who: str) -> Generator[Any, Any, dict[str, Any]]:
        """Erase all that is known of a person; downloads first, while the mails still tell whose they are."""
        counts: dict[str, int] = {}
        known = yield super().export(who)
        for openid in known["openids"]:
            if self._forget is not None:
                yield self._forget(openid)
            if self._projector is not None:
                erased = yield self._projector.erase(openid)
                for name, count in erased.items():
                    counts[name] = counts.get(name, 0) + count
        told = yield super().erase(who)
        return {**told, "downloads": counts}
