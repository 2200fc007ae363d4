"""A real SMTP server on loopback that notes what it takes, writes a log as Postfix does, and fails as it is told."""

from __future__ import annotations

import asyncio
import email
import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult

WORKER = Path(__file__).with_name("mail_worker.py")
SOURCE = Path(__file__).resolve().parents[2] / "src"


@attrs.frozen
class Taken:
    """One mail the server took."""

    at_s: float
    session: int
    sender: str
    recipient: str
    message_id: str
    content: bytes = attrs.field(repr=False)


class MailServer:
    """
    The server, in a thread of its own.

    ``reply(recipient)``: what is answered to the content (None: taken), or a callable that does something to the
    connection. ``on_taken``: called when a mail is noted, before the client is told.
    """

    def __init__(
        self, log: Path | None = None, *, is_tls_from_the_start: bool = False, **options: Any
    ) -> None:
        self.taken: list[Taken] = []
        self.tried: Counter[str] = Counter()
        self.sessions = 0
        self.reply: Callable[[str], Any] = lambda _recipient: None
        self.on_taken: Callable[[Taken], None] = lambda _taken: None
        self.log = log
        self.options = options
        self.context = options.pop("tls_context") if is_tls_from_the_start else None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        if log is not None:
            log.touch()
        self._controller: Controller | None = None
        self._lock = threading.Lock()

    def start(self) -> MailServer:
        """Listen; again after ``stop``."""
        self._controller = Controller(
            self, hostname="127.0.0.1", port=self.port, ssl_context=self.context, **self.options
        )
        self._controller.start()
        return self

    def stop(self) -> None:
        """Refuse connections."""
        if self._controller is not None:
            self._controller.stop(no_assert=True)
            self._controller = None

    def __enter__(self) -> MailServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # What aiosmtpd calls.

    async def handle_EHLO(
        self, server: SMTP, session: Any, _envelope: Any, name: str, replies: list[str]
    ) -> Any:
        session.host_name = name
        self.sessions += 1
        session.number = self.sessions
        return replies

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:
        recipient = envelope.rcpt_tos[0]
        assert len(envelope.rcpt_tos) == 1
        self.tried[recipient] += 1
        answer = self.reply(recipient)
        if callable(answer):
            answer = await answer(server)
        if answer is not None:
            return answer
        message_id = email.message_from_bytes(envelope.content)["Message-ID"]
        taken = Taken(
            time.monotonic(),
            session.number,
            envelope.mail_from,
            recipient,
            message_id,
            bytes(envelope.content),
        )
        with self._lock:
            self.taken.append(taken)
            if self.log is not None:
                with self.log.open("a") as file:
                    number = f"{len(self.taken):X}"
                    file.write(f"Nov 28 10:00:00 mx postfix/cleanup[1]: {number}: message-id={message_id}\n")
                    file.write(
                        f"Nov 28 10:00:00 mx postfix/qmgr[2]: {number}: from=<x@y>, size=1, nrcpt=1 (queue active)\n"
                    )
        self.on_taken(taken)
        return "250 2.0.0 Ok: queued"

    def duplicates(self) -> tuple[int, bool]:
        """Return how many mails came more often than once, and whether all of these had their first Message-ID."""
        by_recipient: dict[str, list[str]] = {}
        for one in self.taken:
            by_recipient.setdefault(one.recipient.lower(), []).append(one.message_id)
        again = [ids for ids in by_recipient.values() if len(ids) > 1]
        return sum(len(ids) - 1 for ids in again), all(len(set(ids)) == 1 for ids in again)

    def most_in_a_second(self, of: Callable[[Taken], str] = lambda _taken: "") -> int:
        """Return the most mails of one kind in any window of a second."""
        most, by_kind = 0, dict[str, list[float]]()
        for one in self.taken:
            times = by_kind.setdefault(of(one), [])
            times.append(one.at_s)
            while times[0] <= one.at_s - 1.0:
                times.pop(0)
            most = max(most, len(times))
        return most


async def drop(server: SMTP) -> None:
    """Cut the connection after the content, without an answer."""
    server.transport.abort()
    await asyncio.sleep(0)
    raise asyncio.CancelledError


def login_of(user: str, password: str) -> Callable[..., AuthResult]:
    """Return an authenticator that knows one user."""

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        is_right = (data.login, data.password) == (user.encode(), password.encode())
        return AuthResult(success=is_right, handled=False)

    return authenticate


class Worker:
    """The process that mails to a server; can be killed and started again."""

    def __init__(self, folder: Path, server: MailServer, settings: dict[str, Any], **options: Any) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        named = {
            "rate_per_s": 1000,
            "domain_rate_per_s": 1000,
            "hold_above": 10**7,
            "settle_ms": 200,
        } | settings
        if server.log is not None:
            named["mta_log"] = str(server.log)
        self.options = {
            "folder": str(folder),
            "host": "127.0.0.1",
            "port": server.port,
            "settings": named,
        } | options
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start, and wait until it works."""
        file = self.folder / "options.json"
        file.write_text(json.dumps(self.options))
        with (self.folder / "stderr").open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", str(WORKER), str(file)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"},
            )
        line = self.process.stdout.readline()
        if line != "ready\n":
            raise AssertionError(f"the worker said {line!r}: {(self.folder / 'stderr').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it as a power failure would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def stop(self) -> None:
        """End it in order."""
        process, self.process = self.process, None
        process.terminate()
        process.communicate(timeout=30)

    def fault(self) -> str:
        """Return what the process says keeps it."""
        file = self.folder / "fault"
        return file.read_text() if file.exists() else ""

    def states(self) -> dict[str, int]:
        """Return how many mails are in which state, as the disk has it."""
        connection = sqlite3.connect(f"file:{self.folder / 'tracking.db'}?mode=ro", uri=True)
        try:
            return dict(connection.execute("SELECT state, count(*) FROM mail GROUP BY state").fetchall())
        finally:
            connection.close()
