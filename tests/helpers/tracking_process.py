"""
Proxy, intake and looks through the index, with a made-up index behind them, as a process of its own.

Run as a program with a folder it serves there until its standard input ends; each line of that is an order as JSON,
answered by one. ``TrackingProcess`` starts one and gives its orders. Real sockets, real TLS, a real file.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SRC = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SRC))

DATA_NODES = ("esgf-data.example.org",)
EVENTS_FILE = "events.jsonl"


class TrackingProcess:
    """
    The process as others see it; a context manager.

    Args:
        folder: of its files; kept, so that another can go on there.
        options: ``lenient``: the index reads XML that is none; ``index=URL``: another one is asked, by plain HTTP.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        found = self._read()
        self.address: str = found["address"]
        self.index_url: str = found["index"]
        self.certificate = Path(found["certificate"])

    def __enter__(self) -> TrackingProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError("the process has ended")
        return json.loads(line)

    def order(self, what: str, /, **arguments: Any) -> dict[str, Any]:
        """Give an order; return the answer."""
        self._process.stdin.write(json.dumps({"order": what, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def received(self) -> list[dict[str, Any]]:
        """Return the requests that reached the index, oldest first."""
        found = self.order("received")["received"]
        return [{**one, "body": base64.b64decode(one["body"])} for one in found]

    def events(self) -> list[str]:
        """Return what the log holds: type, version, epoch."""
        path = self.folder / EVENTS_FILE
        return [json.loads(line)["story"] for line in path.read_text().splitlines()] if path.exists() else []

    def counts(self) -> dict[str, Any]:
        """Return counts and faults of all parts."""
        return self.order("counts")

    def look(self) -> str:
        """Have the index looked through; return the fault, empty where all is well."""
        return self.order("look")["fault"]

    def context(self) -> ssl.SSLContext:
        """Return what a client checks the proxy by."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def send(self, data: bytes) -> bytes:
        """Send bytes over TLS as they are; return all that comes back until the end."""
        host, _, port = self.address.partition(":")
        with (
            socket.create_connection((host, int(port)), timeout=60) as plain,
            self.context().wrap_socket(plain, server_hostname=host) as secure,
        ):
            secure.sendall(data)
            return b"".join(iter(lambda: secure.recv(65536), b""))

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(60)
        self._close_pipes()

    def close(self) -> None:
        """End it in order."""
        if self._process.poll() is None:
            self._process.stdin.close()
            self._process.wait(60)
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


# --------------------------------------------------------------------- the program


def main(folder: Path, options: Sequence[str]) -> None:
    """Serve until standard input ends."""
    from twisted.internet import reactor, stdio
    from twisted.internet.defer import Deferred, fail, succeed
    from twisted.protocols.basic import LineReceiver
    from twisted.web.server import NOT_DONE_YET

    from esgf_gossip.demo.index_stub import IndexStub
    from esgf_gossip.sources.index_client import IndexClient
    from esgf_gossip.storage.journal_thread import JournalThread
    from esgf_gossip.tracking import event_intake, index_poll
    from esgf_gossip.tracking.database import TrackingDatabase
    from esgf_gossip.tracking.event_intake import Intake
    from esgf_gossip.tracking.index_poll import IndexPoll
    from esgf_gossip.tracking.index_questions import IndexQuestions
    from esgf_gossip.trust.loopback_certificate import CERTIFICATE_FILE, KEY_FILE, write_loopback_certificate
    from esgf_gossip.trust.web_tls import HostCertificate, ServicePolicy
    from esgf_gossip.web.index_proxy import PATH, IndexProxy
    from esgf_gossip.web.tracking_site import make_tracking_site, with_certificate

    if not (folder / CERTIFICATE_FILE).exists():
        write_loopback_certificate(folder)
    certificate, key = folder / CERTIFICATE_FILE, folder / KEY_FILE
    now_ms = lambda: time.time_ns() // 1_000_000
    stub = IndexStub(is_strict="lenient" not in options)
    index_url = stub.listen(reactor, certificate, key)
    broken: list[str] = []

    def publish(events: Sequence[Any]) -> Deferred[None]:
        if "log" in broken:
            return fail(OSError("no space left on device"))
        path = folder / EVENTS_FILE
        known = (
            {json.loads(line)["key"] for line in path.read_text().splitlines()} if path.exists() else set()
        )
        with path.open("a") as file:
            for event in events:
                name = f"{event.change_key.hex()} {event.data_node}"
                if name not in known:
                    story = f"{event.type.value} {event.dataset.version} {event.epoch}"
                    file.write(json.dumps({"key": name, "story": story}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return succeed(None)

    def see(connection: Any, *arguments: Any, **named: Any) -> Any:
        if "disk" in broken:
            raise sqlite3.OperationalError("database or disk is full")
        return taken(connection, *arguments, **named)

    taken, event_intake.catalog.see = event_intake.catalog.see, see
    scripts = {"intake": event_intake.SCRIPT, "index_poll": index_poll.SCRIPT}
    database = TrackingDatabase(folder / "tracking.db", scripts, JournalThread(reactor, "tracking"))
    intake = Intake(database, DATA_NODES, publish, reactor, now_ms)
    intake.start()
    index_url = next((one.partition("=")[2] for one in options if one.startswith("index=")), index_url)
    client = IndexClient(reactor, index_url, ServicePolicy(certificate))
    questions = IndexQuestions(client.ask, reactor, now_ms)
    poll = IndexPoll(questions, intake, database, DATA_NODES, 3600, reactor, now_ms)
    proxy = IndexProxy(client, intake, questions, ["127.0.0.1/32"], reactor, now_ms)
    site = make_tracking_site({PATH: proxy}, ["127.0.0.1", "localhost"], reactor)
    port = reactor.listenTCP(
        0, with_certificate(site, HostCertificate(certificate, key)), interface="127.0.0.1"
    )

    def interfere(received: Any) -> Any:
        if "hang" in broken and "/ws/" in received.target:
            return NOT_DONE_YET
        if "index" in broken:
            return (
                500,
                b'<?xml version="1.0" encoding="UTF-8"?><response status="error"><message>no</message></response>',
            )
        if "odd" in broken:
            return 200, b'<response status="error"/>', "text/odd"
        return None

    stub.interfere = interfere

    class Orders(LineReceiver):
        """Takes orders from standard input."""

        delimiter = b"\n"
        MAX_LENGTH = 1 << 24

        def lineReceived(self, line: bytes) -> None:
            order = json.loads(line)
            getattr(self, f"order_{order.pop('order')}")(**order)

        def answer(self, **found: Any) -> None:
            # Not by print: the pipe does not block any more.
            self.sendLine(json.dumps(found).encode())

        def order_received(self) -> None:
            self.answer(
                received=[
                    {
                        "call": one.call,
                        "method": one.method,
                        "target": one.target,
                        "content_type": one.content_type,
                        "agent": one.agent,
                        "body": base64.b64encode(one.body).decode(),
                    }
                    for one in stub.received
                ]
            )

        def order_counts(self) -> None:
            parts = {"proxy": proxy, "intake": intake, "poll": poll}
            counts = {
                f"{name}_{field}": getattr(part.counts, field)
                for name, part in parts.items()
                for field in part.counts.__slots__
                if not field.startswith("__")
            }
            self.answer(**counts, **{f"{name}_fault": part.fault for name, part in parts.items()})

        def order_put(self, records: dict[str, Any]) -> None:
            stub.records.update(records)
            self.answer()

        def order_break(self, what: list[str]) -> None:
            broken[:] = what
            self.answer()

        def order_unlisten(self) -> None:
            stub.close()
            self.answer()

        def order_look(self) -> None:
            poll.look().addCallback(lambda _: self.answer(fault=poll.fault))

        def connectionLost(self, reason: Any = None) -> None:
            intake.stop()
            database.close()
            reactor.stop()

    stdio.StandardIO(Orders())
    print(
        json.dumps(
            {
                "address": f"127.0.0.1:{port.getHost().port}",
                "index": index_url,
                "certificate": str(certificate),
            }
        ),
        flush=True,
    )
    reactor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
