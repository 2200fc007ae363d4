"""
What a site has beside the daemon, for ``demo --tracking``: an index, a mail server, a page to read the mails.

One process for all nodes of a demo: ``python -m esgf_gossip.demo.site_services INDEX SMTP MAILBOX FOLDER``. It
listens on 127.0.0.1 alone and hands no mail on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from email import message_from_bytes, policy
from pathlib import Path
from typing import Final

import attrs

SERVICE_PORTS: Final = 3
_LOOPBACK: Final = "127.0.0.1"


@attrs.frozen
class SiteServices:
    """The three ports, and the folder of the mails."""

    index: int
    smtp: int
    mailbox: int
    folder: Path

    @property
    def mailbox_url(self) -> str:
        """The page of the mails."""
        return f"http://{_LOOPBACK}:{self.mailbox}/"

    def command(self) -> list[str]:
        """Return the command line of the process."""
        ports = map(str, (self.index, self.smtp, self.mailbox))
        return [sys.executable, "-m", __name__, *ports, str(self.folder)]

    def recipients(self) -> Sequence[str]:
        """Return the address each mail went to, as its header says it, in the order in which they came."""
        return [
            str(message_from_bytes(path.read_bytes(), policy=policy.default)["to"])
            for path in sorted(self.folder.glob("*.eml"))
        ]


def _main(index: str, smtp: str, mailbox: str, folder: str) -> None:
    from twisted.internet import reactor  # noqa: PLC0415 - not where only the ports are wanted
    from twisted.web.server import Site  # noqa: PLC0415

    from esgf_gossip.demo.index_stub import IndexStub  # noqa: PLC0415
    from esgf_gossip.demo.mailbox import Mailbox, MailboxPage, mail_factory  # noqa: PLC0415

    mails = Mailbox(Path(folder))
    for port, factory in (
        (index, Site(IndexStub())),
        (smtp, mail_factory(mails)),
        (mailbox, Site(MailboxPage(mails))),
    ):
        reactor.listenTCP(int(port), factory, interface=_LOOPBACK)
    reactor.run()


if __name__ == "__main__":
    _main(*sys.argv[1:])
