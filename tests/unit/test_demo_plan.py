"""The layout of a demo: ports, folders, files and their modes."""

from __future__ import annotations

import socket
import stat
import time

import pytest

from esgf_gossip.config import load
from esgf_gossip.demo.plan import (
    FEDERATION,
    DemoError,
    HeldPorts,
    demo_hosts,
    lay_out,
    plan,
    refuse_occupied,
)
from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.sources.site import SiteFiles, read_site
from esgf_gossip.trust.material import TrustMaterial

KINDS = ("roots", "crl", "bundle")


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """Lay out a demo of three nodes once."""
    directory = tmp_path_factory.mktemp("with space")
    with DemoFederation(directory, 3) as federation:
        told = []
        federation.prepare(told.append)
        assert told == [1, 2, 3]
        yield federation


def mode(path) -> int:
    """Give the permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_every_node_has_its_folder(laid_out):
    """DIR holds trust/ and nodes/<host>/ with configuration, site data, key and chain."""
    assert sorted(path.name for path in laid_out.directory.iterdir()) == ["nodes", "trust"]
    assert sorted(laid_out.hosts) == sorted(path.name for path in (laid_out.directory / "nodes").iterdir())
    for host in laid_out.hosts:
        folder = laid_out.node(host).folder
        for name in (
            "node.toml",
            "esgf.properties",
            "config_type",
            "groups.txt",
            "trust/node.key",
            "trust/chain.pem",
        ):
            assert (folder / name).is_file(), name
        assert [mode(folder / "trust" / "node.key"), mode(folder / "trust")] == [0o600, 0o700]
        assert (folder / "state").is_dir()


def test_configurations_stay_on_this_machine(laid_out):
    """Every node listens on, advertises and dials 127.0.0.1 only, and probes nothing."""
    ports = set()
    for host in laid_out.hosts:
        config = load(laid_out.config_path(host))
        assert (host, FEDERATION, False) == (config.node.host, config.node.federation, config.services.probe)
        assert config.gossip.listen == config.gossip.advertise
        addresses = [config.gossip.listen, config.http.listen, *config.gossip.seeds]
        assert {"127.0.0.1"} == {address for address, _ in addresses}
        ports |= {config.gossip.listen[1], config.http.listen[1]}
        assert laid_out.http_url(host) == f"http://127.0.0.1:{config.http.listen[1]}"
    assert len(ports) == 2 * len(laid_out.hosts)


def test_seeds_are_other_nodes(laid_out):
    """Each node knows one or two others to dial first, never itself."""
    gossip = {host: load(laid_out.config_path(host)).gossip for host in laid_out.hosts}
    for host, table in gossip.items():
        others = {other.listen for name, other in gossip.items() if name != host}
        assert 1 <= len(table.seeds) <= 2
        assert set(table.seeds) <= others


def test_what_is_laid_out_can_run(laid_out):
    """Site data and trust of every node are good as they are."""
    now_ms = time.time_ns() // 1_000_000
    for host in laid_out.hosts:
        config = load(laid_out.config_path(host))
        esgf = config.esgf
        site = read_site(SiteFiles(esgf.properties, esgf.config_type, esgf.groups), host)
        assert host == site.registration.host
        material = TrustMaterial.load(config.trust.directory, host=host, federation=FEDERATION, now_ms=now_ms)
        assert [finding for finding in material.findings(now_ms) if finding.level == "critical"] == []


def test_no_two_demos_in_one_folder(laid_out):
    """A folder that holds a demo is refused before anything is written."""
    with pytest.raises(
        DemoError, match=r"there is a demo already; .*nodes; remove it, or give another --dir"
    ):
        DemoFederation(laid_out.directory, 1)


def test_other_files_in_the_folder_stay(tmp_path):
    """DIR may hold other files; a dangling nodes or a plain file is refused."""
    (tmp_path / "notes.txt").write_text("mine")
    refuse_occupied(tmp_path)
    with pytest.raises(DemoError, match="is not a folder"):
        refuse_occupied(tmp_path / "notes.txt")
    (tmp_path / "nodes").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DemoError, match="there is a demo already"):
        refuse_occupied(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_fifty_nodes_are_written(tmp_path):
    """Certificates and folders of fifty nodes, copies of the real sites among them."""
    with HeldPortsOf(50) as ports:
        nodes = plan(tmp_path, demo_hosts(50), ports)
    lay_out(tmp_path, nodes)
    assert len(list((tmp_path / "nodes").iterdir())) == 50


class HeldPortsOf(HeldPorts):
    """Ports of some nodes as a context, given back at its end."""

    def __init__(self, nodes: int):
        super().__init__(2 * nodes)

    def __enter__(self):
        return self.numbers

    def __exit__(self, *_):
        self.close()


def test_held_ports_are_nobody_elses():
    """A held port is given to no other program, but a daemon may listen on it again and again."""
    with HeldPortsOf(20) as ports:
        assert len(set(ports)) == 40
        with HeldPortsOf(20) as others:
            assert set(ports).isdisjoint(others)
        for _ in range(2):
            with socket.create_server(("127.0.0.1", ports[0])), pytest.raises(DemoError, match="is in use"):
                HeldPorts(1, ports[0])


def test_a_row_of_ports_is_taken_as_told():
    """With a base port the ports follow it; one in use is named, and so is a row beyond the last port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        used = server.getsockname()[1]
        with pytest.raises(DemoError, match=f"port {used} is in use; --base-port; "):
            HeldPorts(2, used)
    with pytest.raises(DemoError, match="ports 65535 to 65536 are out of range"):
        HeldPorts(2, 65535)


def test_hosts_are_those_of_the_sites():
    """A demo of more nodes has the hosts of a smaller one first; none at all is refused."""
    assert demo_hosts(5) == demo_hosts(20)[:5]
    assert len(set(demo_hosts(50))) == 50
    with pytest.raises(DemoError, match="0 nodes are none"):
        demo_hosts(0)
