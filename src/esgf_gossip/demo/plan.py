"""
The layout of a demo federation on disk: trust root, and one folder per node.

Only files and port numbers are made here; processes are ``demo.processes``.
Everything listens on and advertises 127.0.0.1.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from esgf_gossip.addresses import format_address
from esgf_gossip.config import toml_string
from esgf_gossip.demo.site_data import site_hosts, write_site
from esgf_gossip.documents.names import writer_role
from esgf_gossip.esgf.properties import parse_properties
from esgf_gossip.esgf.reader_rules import peer_groups
from esgf_gossip.files import create_file

if TYPE_CHECKING:
    from esgf_gossip.trust.authority import Authority

FEDERATION: Final = "demo.esgf.example"
LOOPBACK: Final = "127.0.0.1"
# As long as those of real nodes: with less, check would speak of their end.
CERTIFICATE_DAYS: Final = 90
# The peer groups of the real sites: what a node claims, its certificate must grant.
# Projects whose documents the nodes of a demo may write; all but the last node, so that a refusal can be seen too.
PROJECTS: Final = ("CMIP6", "CORDEX")
PEER_GROUPS: Final = ("esgf-prod", "esgf-test", "cssef")

ROLES: Final = tuple(map(writer_role, PROJECTS))

_NODE_TOML: Final = """\
# One node of a demo federation on one machine; see DIR/nodes for the others.
[node]
host = {host}
federation = {federation}
state = "state"

[gossip]
listen = {gossip}
advertise = {gossip}
seeds = [{seeds}]

[trust]
directory = "trust"

[esgf]
properties = "esgf.properties"
config_type = "config_type"
groups = "groups.txt"

[http]
listen = {http}

[services]
# The sites of a demo are somebody's real hosts: nothing here may contact them.
probe = false
"""

# Of demo --tracking: nothing here has a name that is somebody's, and mail goes to the demo's own mailbox.
_TRACKING_TOML: Final = """
[tracking]
listen = {listen}
public_url = {public_url}
index = {index}
index_poll_minutes = 0
access_logs = ["access.log"]
users_file = "users.csv"
identity_providers = false
smtp = {smtp}
sender = "esgf-news@demo.esgf.example"
quiet_minutes = 0
"""


class DemoError(Exception):
    """Report why a demo cannot be prepared: what, where, what to do, in one line."""


@attrs.frozen
class TrackingPorts:
    """The ports of tracking: a node's own, and those of index and mail server that all nodes share."""

    own: int
    index: int
    smtp: int


@attrs.frozen
class PlannedNode:
    """One node of the demo: its name, its folder, its ports on 127.0.0.1, the federation it belongs to; None: it tracks nothing."""

    host: str
    folder: Path
    gossip_port: int
    http_port: int
    federation: str = FEDERATION
    tracking: TrackingPorts | None = None

    @property
    def config_path(self) -> Path:
        """The absolute path of its node.toml."""
        return self.folder / "node.toml"

    @property
    def control_socket(self) -> Path:
        """The control socket of its daemon."""
        return self.folder / "state" / "control.sock"

    @property
    def log_path(self) -> Path:
        """Where its daemon's output goes."""
        return self.folder / "daemon.log"

    @property
    def http_url(self) -> str:
        """The base URL of its HTTP resource, without a slash at its end."""
        return f"http://{LOOPBACK}:{self.http_port}"


class HeldPorts:
    """
    Ports on 127.0.0.1 that nobody else gets while this object is open.

    A bound socket that does not listen keeps the port from being given to
    another program, and lets a daemon that sets SO_REUSEADDR listen on it, again
    and again: so two demos, or a demo and a busy machine, never collide.
    """

    def __init__(self, count: int, base_port: int | None = None) -> None:
        """
        Take ports: any free ones, or ``base_port`` and those that follow it.

        Raises:
            DemoError: a port of the row is in use, or there are not so many.
        """
        self._sockets: list[socket.socket] = []
        if base_port is not None and not 1 <= base_port <= 65536 - count:
            raise DemoError(
                f"ports {base_port} to {base_port + count - 1} are out of range; --base-port; give a lower one"
            )
        try:
            for number in range(count):
                self._take(0 if base_port is None else base_port + number)
        except BaseException:
            self.close()
            raise

    @property
    def numbers(self) -> list[int]:
        """The ports, in the order in which they were taken."""
        return [held.getsockname()[1] for held in self._sockets]

    def close(self) -> None:
        """Give the ports back."""
        for held in self._sockets:
            held.close()

    def _take(self, port: int) -> None:
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._sockets.append(held)
        # Linux gives a port to two such sockets only if asked for that number, never by itself.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((LOOPBACK, port))
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else error.strerror
            raise DemoError(
                f"port {port} {reason}; --base-port; give another, or none for free ports"
            ) from None


def plan(
    directory: Path, hosts: Sequence[str], ports: Sequence[int], federation: str = FEDERATION
) -> tuple[PlannedNode, ...]:
    """Give each host a folder below DIR/nodes and two ports, gossip and HTTP, in turn."""
    nodes = directory.absolute() / "nodes"
    return tuple(
        PlannedNode(host, nodes / host, ports[2 * number], ports[2 * number + 1], federation)
        for number, host in enumerate(hosts)
    )


def with_tracking(
    nodes: Sequence[PlannedNode], ports: Sequence[int], index: int, smtp: int
) -> tuple[PlannedNode, ...]:
    """Let each node track datasets, on a port of its own, with an index and a mail server for all."""
    return tuple(
        attrs.evolve(node, tracking=TrackingPorts(port, index, smtp))
        for node, port in zip(nodes, ports, strict=False)
    )


def refuse_occupied(directory: Path) -> None:
    """
    See that a demo may be laid out in a folder.

    Raises:
        DemoError: it holds an earlier demo, or is no folder.
    """
    if directory.exists() and not directory.is_dir():
        raise DemoError(f"it is not a folder; {directory}; give another --dir")
    for name in ("nodes", "trust"):
        path = directory / name
        if path.is_symlink() or path.exists():
            raise DemoError(f"there is a demo already; {path}; remove it, or give another --dir")


def lay_out(
    directory: Path, nodes: Sequence[PlannedNode], tell: Callable[[int], None] = lambda _: None
) -> None:
    """
    Write the trust root and all folders.

    Args:
        directory: DIR; made where it is missing.
        nodes: of ``plan``.
        tell: called with the number of nodes that are ready, after each.

    Raises:
        DemoError: ``refuse_occupied``; what trust refuses.
        OSError: the disk; what was written stays.
    """
    from esgf_gossip.trust.errors import TrustError  # noqa: PLC0415
    from esgf_gossip.trust.founding import create_authority  # noqa: PLC0415 - brings cryptography

    refuse_occupied(directory)
    (directory / "nodes").mkdir(parents=True)
    _make_private(directory / "trust")
    now_ms = time.time_ns() // 1_000_000
    trust = directory / "trust"
    try:
        federation = nodes[0].federation
        authority = create_authority(
            trust, trust / "private", federation, now_ms, None, groups=PEER_GROUPS, roles=ROLES
        )
        for number, node in enumerate(nodes, 1):
            is_writer = number == 1 or number < len(nodes)
            _lay_out_node(node, nodes, authority, now_ms, is_writer=is_writer)
            tell(number)
    except TrustError as error:
        raise DemoError(error.text) from None


def _lay_out_node(
    node: PlannedNode, nodes: Sequence[PlannedNode], authority: Authority, now_ms: int, *, is_writer: bool
) -> None:
    """Take a node the way of every node: key and request, approval, installation."""
    from esgf_gossip.trust.install import install  # noqa: PLC0415 - brings cryptography
    from esgf_gossip.trust.requests import make_request  # noqa: PLC0415

    _make_private(node.folder)
    (node.folder / "state").mkdir()
    properties = write_site(node.host, node.folder).properties
    trust = node.folder / "trust"
    trust.mkdir(mode=0o700)
    groups = peer_groups(parse_properties(properties.read_bytes()).get("node.peer.group", ""))
    request = make_request(trust, node.host, node.federation, [node.host], groups, ROLES if is_writer else [])
    issued = authority.approve(
        request.pem, fingerprint=request.fingerprint, now_ms=now_ms, days=CERTIFICATE_DAYS
    )
    install(
        trust,
        issued.chain_pem,
        authority.roots(),
        authority.crls(),
        host=node.host,
        federation=node.federation,
        now_ms=now_ms,
        bundles=authority.bundles(),
    )
    # Last: a folder with a node.toml is a complete one.
    create_file(node.config_path, _node_toml(node, nodes).encode(), 0o644)


def _make_private(folder: Path) -> None:
    """Make a folder that git passes over: it gets keys, and DIR may lie in somebody's work tree."""
    folder.mkdir()
    create_file(folder / ".gitignore", b"*\n", 0o644)


def demo_hosts(count: int) -> list[str]:
    """
    Name the hosts of a demo.

    Raises:
        DemoError: fewer than one.
    """
    if count < 1:
        raise DemoError(f"{count} nodes are none; --nodes; give a number from 1")
    return site_hosts(count)


def _node_toml(node: PlannedNode, nodes: Sequence[PlannedNode]) -> str:
    seeds = [other for other in nodes if other.host != node.host][:2]
    written = _NODE_TOML.format(
        host=toml_string(node.host),
        federation=toml_string(node.federation),
        gossip=toml_string(format_address((LOOPBACK, node.gossip_port))),
        http=toml_string(format_address((LOOPBACK, node.http_port))),
        seeds=", ".join(toml_string(format_address((LOOPBACK, seed.gossip_port))) for seed in seeds),
    )
    if node.tracking is None:
        return written
    ports = node.tracking
    return written + _TRACKING_TOML.format(
        listen=toml_string(format_address((LOOPBACK, ports.own))),
        public_url=toml_string(f"http://{LOOPBACK}:{ports.own}"),
        index=toml_string(f"http://{LOOPBACK}:{ports.index}"),
        smtp=toml_string(format_address((LOOPBACK, ports.smtp))),
    )
