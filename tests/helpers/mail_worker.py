"""
A real process that mails: one argument, a file of JSON. It says ``ready`` and works until it is told to end.

For tests and benchmarks that kill it; no test lives here.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from esgf_gossip.storage.journal_thread import AtOnce, JournalThread
from esgf_gossip.tracking.database import TrackingDatabase
from esgf_gossip.tracking.mailing import SCRIPTS as MAILING
from esgf_gossip.tracking.mailing import Mailing, MailSettings
from esgf_gossip.tracking.matches import Change, Match
from esgf_gossip.tracking.resolution import Finding, Resolution
from esgf_gossip.tracking.smtp_session import Login, SmtpServer, open_session
from esgf_gossip.tracking.versions import successor_of
from esgf_gossip.tracking_room import LOG_SCRIPTS
from esgf_gossip.trust.sealed_values import SealedValues

DOMAINS = 20
SCRIPTS = {**LOG_SCRIPTS, **MAILING}
NODE = "esgf-h.example.org"


def now_ms() -> int:
    """Return Unix milliseconds."""
    return time.time_ns() // 10**6


def address_of(user: str) -> str:
    """Return the address of a user; ``u7-2`` is the same person as ``u7``, in other letters."""
    name, _, second = user.partition("-")
    address = f"{name}@d{int(name[1:]) % DOMAINS}.example.org"
    return address.upper() if second else address


def resolve(openid: str) -> Deferred[Resolution]:
    """Know everybody."""
    return succeed(Resolution(Finding.FOUND, address_of(openid.rpartition("/")[2])))


def settings_of(options: dict[str, Any]) -> MailSettings:
    """Return the settings in a file of options."""
    named = dict(options["settings"])
    if "mta_log" in named:
        named["mta_log"] = Path(named["mta_log"])
    return MailSettings(
        node=NODE,
        sender="news@example.org",
        public_url=f"https://{NODE}/tracking",
        server=f"{options['host']}:{options['port']}",
        quiet_minutes=0,
        max_delay_minutes=0,
        **named,
    )


def take_all(folder: Path, options: dict[str, Any], taken: list[tuple[Change, list[Match], str]]) -> None:
    """Take matches before the process starts; each list in a transaction of its own."""
    database = TrackingDatabase(folder / "tracking.db", SCRIPTS, AtOnce())
    try:
        mailing = Mailing(
            database,
            SealedValues(folder / "tracking.key"),
            None,
            settings_of(options),
            resolve,
            None,
            now_ms,
            Random(1),
            None,
            successor_of,
        )
        for change, matches, node in taken:
            database.now(mailing.take, change, matches, node, now_ms())
    finally:
        database.close()


def main() -> None:
    """Work."""
    from twisted.internet import reactor
    from twisted.internet.threads import deferToThread

    options = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(options["folder"])
    tls = None
    if options.get("roots"):
        root = Certificate.loadPEM(Path(options["roots"]).read_bytes())
        tls = optionsForClientTLS(options["name"], trustRootFromCertificates([root]))
    login = Login(*options["login"]) if options.get("login") else None
    server = SmtpServer(options["host"], options["port"], options.get("security", "none"), NODE, tls, login)
    database = TrackingDatabase(folder / "tracking.db", SCRIPTS, JournalThread(reactor, "tracking"))
    mailing = Mailing(
        database,
        SealedValues(folder / "tracking.key"),
        reactor,
        settings_of(options),
        resolve,
        lambda: open_session(reactor, server),
        now_ms,
        Random(),
        deferToThread,
        successor_of,
    )

    def tell() -> None:
        (folder / "fault").write_text(mailing.fault)
        reactor.callLater(0.05, tell)

    def stop() -> Deferred[Any]:
        return mailing.stop().addCallback(lambda _none: database.close())

    signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(reactor.stop))
    reactor.addSystemEventTrigger("before", "shutdown", stop)
    reactor.callWhenRunning(mailing.start)
    reactor.callWhenRunning(tell)
    reactor.callWhenRunning(print, "ready", flush=True)
    reactor.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
