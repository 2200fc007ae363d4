"""
A member of the federation that sends valid frames as fast as it can: the flooder of the benchmarks.

A program of its own, so that its work is not the harness's. Says so when it
has got in, ends with SIGTERM, and then prints what it sent as one JSON object.

    flood.py TRUST_DIRECTORY HOST PORT
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

from OpenSSL import SSL

from esgf_gossip.core.codec import encode
from esgf_gossip.core.framing import frame
from esgf_gossip.core.messages import Announce, Ask, Heads, Hello, LineKind, Message, Ping, Roots, Want
from esgf_gossip.core.model import CertificateRank, Head, Order
from esgf_gossip.demo.plan import FEDERATION, LOOPBACK
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.tls import ConnectionCreator

RECORD_BYTES: Final = 16 * 1024
# Below everybody else: what is measured is the daemons, not who wins a processor.
NICENESS: Final = 19
VOLLEYS: Final = 24


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def volley(number: int, draw: random.Random) -> tuple[bytes, int]:
    """Return frames of every kind that costs the receiver something, and how many they are."""
    rank = CertificateRank(1, bytes(20))

    def heads(name: str) -> tuple[Head, ...]:
        return tuple(
            Head(f"{name}{number}-{one}.example.org", Order(rank, 5, 1), draw.randbytes(32))
            for one in range(500)
        )

    messages: list[Message] = [Ping(one, _now_ms()) for one in range(300)]
    messages += [Roots({int(LineKind.DIGESTS): draw.randbytes(32)}, is_reply=False)]
    messages += [Ask(one, f"nobody{number}-{one}.example.org", None, b"") for one in range(50)]
    messages += [Want(one, tuple(draw.randbytes(32) for _ in range(64))) for one in range(20)]
    messages += [Announce(heads("unknown")), Heads(heads("page"), is_last=False)]
    draw.shuffle(messages)
    # A kind nobody knows yet: to be ignored.
    frames = [frame(encode(message)) for message in messages] + [frame(b"\x92\xcc\xc8\xc0")] * 50
    return b"".join(frames), len(frames)


class Flooder:
    """One connection at a time to one node, kept full; opened again when it is closed."""

    def __init__(self, creator: ConnectionCreator, port: int) -> None:
        self.sent_bytes = 0
        self.sent_frames = 0
        self.connections = 0
        self.is_told_to_stop = False
        self._creator = creator
        self._port = port

    def run(self) -> None:
        """Flood until told to stop."""
        draw = random.Random(1)
        volleys = [volley(number, draw) for number in range(VOLLEYS)]
        while not self.is_told_to_stop:
            try:
                self._flood_once(volleys)
            except (OSError, SSL.Error):
                time.sleep(0.01)

    def _flood_once(self, volleys: list[tuple[bytes, int]]) -> None:
        tls = self._creator.clientConnectionForTLS(None)
        tls.set_connect_state()
        with socket.create_connection((LOOPBACK, self._port), timeout=10) as ours:
            while True:
                try:
                    tls.do_handshake()
                    break
                except SSL.WantReadError:
                    self._write(tls, ours)
                    self._read(tls, ours)
            self.connections += 1
            if self.connections == 1:
                print("flooding", flush=True)
            ours.setblocking(False)
            hello = Hello(1, 1, (), FEDERATION, os.urandom(16), _now_ms(), {}, None)
            self._send(tls, ours, frame(encode(hello)))
            while not self.is_told_to_stop:
                for data, frames in volleys:
                    self._send(tls, ours, data)
                    self.sent_frames += frames

    def _send(self, tls: SSL.Connection, ours: socket.socket, data: bytes) -> None:
        for start in range(0, len(data), RECORD_BYTES):
            part = data[start : start + RECORD_BYTES]
            tls.send(part)
            self._write(tls, ours)
            self.sent_bytes += len(part)
            if self.is_told_to_stop:
                return

    def _write(self, tls: SSL.Connection, ours: socket.socket) -> None:
        """Write what TLS has to say, reading all the while: who does not read is cut off, and floods no more."""
        while True:
            try:
                data = memoryview(tls.bio_read(65536))
            except SSL.WantReadError:
                return
            while data and not self.is_told_to_stop:
                readable, writable, _ = select.select([ours], [ours], [], 1.0)
                if readable:
                    self._read(tls, ours)
                if writable:
                    data = data[ours.send(data) :]

    def _read(self, tls: SSL.Connection, ours: socket.socket) -> None:
        data = ours.recv(256 * 1024)
        if not data:
            raise ConnectionResetError
        tls.bio_write(data)
        if ours.gettimeout() is not None and ours.gettimeout() > 0:
            return  # the handshake reads for itself
        try:
            while tls.recv(65536):
                pass
        except SSL.WantReadError:
            pass


def main() -> int:
    """Flood until SIGTERM."""
    trust, host, port = sys.argv[1:]
    os.nice(NICENESS)
    material = TrustMaterial.load(Path(trust), host=host, federation=FEDERATION, now_ms=_now_ms())
    flooder = Flooder(ConnectionCreator(material, _now_ms), int(port))

    def stop(*_: object) -> None:
        flooder.is_told_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    begun_s = time.monotonic()
    flooder.run()
    seconds = time.monotonic() - begun_s
    print(
        json.dumps(
            {
                "frames_per_s": round(flooder.sent_frames / seconds),
                "megabytes_per_s": round(flooder.sent_bytes / seconds / 1e6, 2),
                "connections": flooder.connections,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
