"""Real daemons against a peer with a valid certificate that behaves as badly as it can, and a careless administrator."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from esgf_gossip.cli.failures import CommandError
from esgf_gossip.core.codec import decode, encode
from esgf_gossip.core.framing import FrameBuffer, frame
from esgf_gossip.core.limits import HANDSHAKE_S
from esgf_gossip.core.messages import Announce, Ask, Goodbye, Hello, Message, Ping, Pong
from esgf_gossip.core.model import CertificateRank, Head, Order
from esgf_gossip.demo.plan import FEDERATION
from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.net.sparing import LINES_A_WINDOW
from esgf_gossip.trust.material import TrustMaterial
from esgf_gossip.trust.tls import ConnectionCreator
from helpers.daemons import all_equal, eventually, fetch, set_property, status_of

RANK = CertificateRank(1, bytes(20))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Member:
    """A member of the federation with real trust and no manners: one blocking connection."""

    def __init__(self, creator: ConnectionCreator, port: int) -> None:
        self._tls = creator.clientConnectionForTLS(None)
        self._tls.set_connect_state()
        self._frames = FrameBuffer()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        try:
            self._shake_hands()
        except Exception:
            self._socket.close()
            raise

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except SSL.WantReadError:
                self._flush()
                self._feed()
            else:
                self._flush()
                return

    def _flush(self) -> None:
        while True:
            try:
                self._socket.sendall(self._tls.bio_read(65536))
            except SSL.WantReadError:
                return

    def _feed(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise EOFError
        self._tls.bio_write(data)

    def send_bytes(self, data: bytes) -> None:
        """Send any bytes through TLS."""
        for start in range(0, len(data), 16384):
            self._tls.send(data[start : start + 16384])
            self._flush()

    def send(self, message: Message) -> None:
        """Send one message."""
        self.send_bytes(frame(encode(message)))

    def hello(self, **changes: int) -> Member:
        """Send a hello; give the member itself."""
        versions = {"version_min": 1, "version_max": 1} | changes
        self.send(Hello(**versions, features=(), federation=FEDERATION, instance=os.urandom(16),
                        clock_ms=_now_ms(), roots={}, head_of_you=None))  # fmt: skip
        return self

    def read_to_the_end(self) -> list[Message]:
        """Read until the daemon closes the connection; a daemon that does not is a failure by timeout."""
        messages: list[Message] = []
        while True:
            try:
                data = self._tls.recv(65536)
            except SSL.WantReadError:
                try:
                    self._feed()
                except (EOFError, ConnectionError):
                    return messages
            except (SSL.ZeroReturnError, SSL.Error):
                return messages
            else:
                messages += [decode(payload) for payload in self._frames.feed(data)]

    def read_until(self, kind: type[Message]) -> list[Message]:
        """Read until a message of a kind comes; where none does, a failure by timeout."""
        messages: list[Message] = []
        while not any(isinstance(message, kind) for message in messages):
            try:
                messages += [decode(payload) for payload in self._frames.feed(self._tls.recv(65536))]
            except SSL.WantReadError:
                self._feed()
        return messages

    def close(self) -> None:
        """Be gone, without a word."""
        self._socket.close()


class Stage:
    """Two honest daemons, and the trust of a third node in the hands of the test."""

    def __init__(self, federation: DemoFederation) -> None:
        self.federation = federation
        self.host, self.other, self.villain = federation.hosts
        node = federation.node(self.villain)
        material = TrustMaterial.load(
            node.folder / "trust", host=self.villain, federation=FEDERATION, now_ms=_now_ms()
        )
        self._creator = ConnectionCreator(material, _now_ms)
        self._members: list[Member] = []
        self.port = federation.node(self.host).gossip_port

    def member(self) -> Member:
        """Connect to the first daemon as the third node."""
        member = Member(self._creator, self.port)
        self._members.append(member)
        return member

    def is_let_in(self) -> bool:
        """Tell whether the third node gets an answer of the first daemon at this moment."""
        try:
            member = self.member().hello()
            member.send(Ping(1, 1))
            return bool(member.read_until(Pong))
        except (EOFError, ConnectionError):
            return False
        finally:
            self.close_members()

    def close_members(self) -> None:
        """Close what a test left open."""
        while self._members:
            self._members.pop().close()

    @property
    def log(self) -> str:
        """The log of the first daemon."""
        return self.federation.node(self.host).log_path.read_text()

    def descriptors(self) -> int:
        """Count the open files of the first daemon."""
        return len(os.listdir(f"/proc/{self.federation.process_id(self.host)}/fd"))

    def assert_unharmed(self) -> None:
        """The first daemon answers, is linked to the second, and had no fault of its own."""
        eventually(lambda: all_equal(self.federation, [self.host, self.other], 2), "the honest nodes are one")
        eventually(lambda: status_of(self.federation, self.host)["links"] == 1, "linked")
        assert "Traceback" not in self.log
        assert "Unhandled" not in self.log


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One federation for all attacks: what one of them breaks, the next ones find."""
    with DemoFederation(tmp_path_factory.mktemp("hostile"), 3) as federation:
        federation.prepare()
        stage = Stage(federation)
        for host in (stage.host, stage.other):
            federation.start(host)
        eventually(lambda: all_equal(federation, [stage.host, stage.other], 2), "converged")
        yield stage


@pytest.fixture(autouse=True)
def _members_go_home(stage: Stage) -> Iterator[None]:
    """No attack reaches into the next test."""
    yield
    stage.close_members()


def test_an_old_version_is_one_clear_line_and_harms_no_link(stage: Stage) -> None:
    """A peer that speaks no version of ours is told so, and so is the operator, once."""
    member = stage.member().hello(version_min=0, version_max=0)
    goodbye = member.read_to_the_end()[-1]
    assert isinstance(goodbye, Goodbye)
    assert "upgrade the older one" in goodbye.text
    says = f"no link with {stage.villain} at 127.0.0.1:"
    eventually(lambda: says in stage.log, "the log says so")
    (line,) = [line for line in stage.log.splitlines() if says in line]
    assert f"{stage.villain} speaks versions 0 to 0 of the protocol, this node 1 to 1" in line
    stage.assert_unharmed()


@pytest.mark.parametrize(
    "nonsense",
    [
        pytest.param(os.urandom(5000), id="noise"),
        pytest.param(b"\x7f\xff\xff\xff", id="a frame of 2 GB"),
        pytest.param(frame(b"\xc1" * 131072), id="a frame of junk"),
        pytest.param(frame(b"\xdd\xff\xff\xff\xff"), id="an array of four billion"),
        pytest.param(frame(encode(Goodbye(255, 10**9, "\x1b[31m\nodd\u202e"))), id="odd goodbye"),
    ],
)
def test_nonsense_after_the_hello_ends_that_link_alone(stage: Stage, nonsense: bytes) -> None:
    """The connection is closed, with a goodbye where there is a reason, and nothing else happens."""
    member = stage.member().hello()
    member.send_bytes(nonsense)
    member.read_to_the_end()
    assert "\x1b" not in stage.log
    stage.assert_unharmed()


def test_a_peer_that_never_reads_is_cut_off(stage: Stage) -> None:
    """Questions whose answers nobody reads cost a bounded queue, then the link."""
    member = stage.member().hello()
    questions = frame(encode(Ask(1, stage.host, None, b""))) * 2000
    with pytest.raises(ConnectionError):
        member.send_bytes(questions * 200)
    stage.assert_unharmed()


def test_a_flood_of_claims_is_only_traffic(stage: Stage) -> None:
    """A hundred thousand nodes that do not exist leave no trace."""
    member = stage.member().hello()
    for page in range(100):
        heads = [
            Head(f"h{page}-{number}.example.org", Order(RANK, 5, 1), bytes(32)) for number in range(1000)
        ]
        member.send(Announce(tuple(heads)))
    member.close()
    stage.assert_unharmed()
    assert status_of(stage.federation, stage.host)["nodes"]["total"] == 2


def test_links_in_a_loop_leave_some_lines_and_nothing_open(stage: Stage) -> None:
    """A member that connects and goes fills neither the log nor the table of files."""
    before, open_before = stage.log.count("\n"), stage.descriptors()
    for _ in range(100):
        stage.member().hello().close()
    eventually(lambda: stage.descriptors() <= open_before, "all closed")
    # Three kinds of lines: of the connection, of its links, and what other tests left to be summed up.
    assert stage.log.count("\n") - before <= 3 * LINES_A_WINDOW
    stage.assert_unharmed()


def test_two_hundred_stalled_connections_keep_nobody_out(stage: Stage) -> None:
    """They are held to their number, members still get in, and nothing of them stays."""
    open_before = stage.descriptors()
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 50
    stalled = [socket.create_connection(("127.0.0.1", stage.port), timeout=20) for _ in range(200)]
    try:
        for stranger in stalled[::2]:
            # Half of them say half a ClientHello; those turned out already may know it.
            with contextlib.suppress(ConnectionError):
                stranger.sendall(hello)
        member = stage.member().hello()
        member.send(Ping(1, 1))
        assert stage.descriptors() < open_before + 80
        member.close()
    finally:
        for stranger in stalled:
            stranger.close()
    eventually(lambda: stage.descriptors() <= open_before, "all closed")
    stage.assert_unharmed()


def test_a_thousand_stalled_connections_are_gone_within_their_deadline(stage: Stage) -> None:
    """They come from many addresses at once; a member still gets in, and each of them is closed by the daemon."""
    stalled = []
    try:
        for number in range(1000):
            # Five to an address: the crowd of each makes room itself, so nobody else is kept out.
            source = (f"127.0.{1 + number // 1000}.{1 + number // 5}", 0)
            stalled.append(socket.create_connection(("127.0.0.1", stage.port), 20, source_address=source))
        deadline_s = time.monotonic() + HANDSHAKE_S + 2
        eventually(stage.is_let_in, "a member that dials again gets in")
        for stranger in stalled:
            stranger.settimeout(max(0.01, deadline_s - time.monotonic()))
            with contextlib.suppress(ConnectionError):
                assert stranger.recv(1) == b""
    finally:
        for stranger in stalled:
            stranger.close()
    stage.assert_unharmed()


def test_members_without_a_hello_are_held_to_their_number(stage: Stage) -> None:
    """A certificate alone buys no unbounded number of connections."""
    open_before = stage.descriptors()
    silent = [stage.member() for _ in range(100)]
    assert stage.descriptors() < open_before + 80
    for member in silent:
        member.close()
    eventually(lambda: stage.descriptors() <= open_before, "all closed")
    stage.assert_unharmed()


def test_a_reload_takes_no_other_name(stage: Stage) -> None:
    """A node.toml that turns into another node's, key and all, needs a restart: until then it is this node."""
    config = stage.federation.config_path(stage.host)
    before = config.read_text()
    folder = stage.federation.node(stage.villain).folder
    after = (
        before.replace(f'host = "{stage.host}"', f'host = "{stage.villain}"')
        .replace('directory = "trust"', f'directory = "{folder}/trust"')
        .replace('properties = "esgf.properties"', f'properties = "{folder}/esgf.properties"')
    )
    try:
        config.write_text(after)
        for _ in range(2):
            answer = stage.federation.control(stage.host).ask("reload")
            assert answer["changed"] == []
            assert "[node] changed; restart the daemon for it" in answer["findings"]
    finally:
        config.write_text(before)
    assert stage.federation.control(stage.host).ask("reload") == {
        "changed": [],
        "refused": [],
        "findings": [],
    }
    assert status_of(stage.federation, stage.host)["host"] == stage.host
    stage.assert_unharmed()


def test_a_storm_of_hangups_is_only_work(stage: Stage) -> None:
    """However often it is told to reload, the daemon goes on."""
    for _ in range(500):
        os.kill(stage.federation.process_id(stage.host), signal.SIGHUP)
    stage.assert_unharmed()


def test_a_failed_start_leaves_the_document_of_the_last_run(stage: Stage) -> None:
    """The HTTP port is taken: the daemon does not start, and what readers see on the disk is what was there."""
    federation, host = stage.federation, stage.host
    document = federation.node(host).folder / "state" / "registration.xml"
    eventually(lambda: document.read_bytes().count(b"<Node ") == 2, "both nodes are in the file")
    federation.terminate(host)
    before = document.read_bytes()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", federation.node(host).http_port))
        taken.listen()
        federation.start(host)
        eventually(lambda: not federation.is_running(host), "the daemon ends")
        twist = [str(Path(sys.executable).with_name("twist")), "esgf-gossip", "--config"]
        run = subprocess.run([*twist, str(federation.config_path(host))], capture_output=True, text=True,
                             timeout=60, check=False)  # fmt: skip
    assert (federation.exit_code(host), run.returncode) == (11, 11)
    assert f"127.0.0.1:{federation.node(host).http_port}" in run.stderr
    assert document.read_bytes() == before
    federation.start(host)
    stage.assert_unharmed()


def test_several_stops_at_once_are_one(stage: Stage) -> None:
    """Three clients and two signals end the daemon once, in good order."""
    federation, host = stage.federation, stage.host

    def ask_to_stop() -> None:
        # Who comes last may find nobody left to ask.
        with contextlib.suppress(CommandError):
            federation.control(host).ask("stop")

    clients = [threading.Thread(target=ask_to_stop) for _ in range(3)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(20)
    eventually(lambda: not federation.is_running(host), "the daemon ends")
    assert federation.exit_code(host) == 0
    federation.start(host)
    stage.assert_unharmed()


def test_a_removed_state_folder_is_told(stage: Stage) -> None:
    """SQLite writes on into a file without a name; the operator is told, and a restart mends it."""
    federation, host = stage.federation, stage.host
    shutil.rmtree(federation.node(host).folder / "state")
    set_property(
        federation.config_path(stage.other).parent / "esgf.properties", "node.short.name", "AFTERWARDS"
    )
    federation.control(stage.other).ask("reload")
    eventually(lambda: "removed or replaced under the running daemon" in stage.log, "the log says so")
    eventually(
        lambda: b'shortName="AFTERWARDS"' in fetch(federation.http_url(host), "/registration.xml")[2],
        "it goes on in memory",
    )
    federation.terminate(host)
    federation.start(host)
    stage.assert_unharmed()
