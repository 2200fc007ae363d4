"""Real processes, real certificates, real TLS: what an administrator would see."""

import os
import re
import signal
import socket
import subprocess

import pytest

from esgf_gossip.cli.failures import CommandError
from esgf_gossip.cli.run import daemon_command
from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.views.lists_xml import USUAL
from helpers.daemons import (
    a_federation_of_processes,
    all_equal,
    eventually,
    fetch,
    fetch_json,
    set_property,
    status_of,
)

STATIC = """<Registration xmlns="http://www.esgf.org/registry" timeStamp="1" version="v0.0.1">
<Node organization="Old" hostname="old.example.org" nodeType="4" timeStamp="5" shortName="OLD">
<AuthorizationService endpoint="https://old.example.org/orp"/></Node></Registration>"""


def _without_stamp(document: bytes) -> bytes:
    return re.sub(rb'(<Registration [^>]*timeStamp=")\d+', rb"\1", document, count=1)


def test_seven_nodes_survive_a_kill_a_change_and_a_restart(tmp_path):
    """Kill -9 one, change a property on another, restart the first: all hold the same set again."""
    with a_federation_of_processes(tmp_path, 7) as federation:
        victim, changed, *others = federation.hosts
        epoch_before = status_of(federation, victim)["epoch"]
        federation.kill(victim)
        assert federation.exit_code(victim) == -signal.SIGKILL

        set_property(federation.config_path(changed).parent / "esgf.properties", "node.short.name", "NEWNAME")
        assert federation.control(changed).ask("reload")["changed"] == ["registration"]
        eventually(
            lambda: all(
                fetch_json(federation.http_url(host), f"/api/v1/nodes/{changed}")["short_name"] == "NEWNAME"
                for host in others
            ),
            "the change is everywhere",
        )

        # A peer group that the certificate does not grant is claimed in vain.
        set_property(
            federation.config_path(changed).parent / "esgf.properties", "node.peer.group", "esgf-prod,evil"
        )
        assert federation.control(changed).ask("reload")["changed"] == ["registration"]
        eventually(
            lambda: all(
                fetch_json(federation.http_url(host), f"/api/v1/nodes/{changed}")["peer_groups_refused"]
                == ["evil"]
                for host in others
            ),
            "the claim is everywhere, and refused",
        )
        assert (
            fetch_json(federation.http_url(others[0]), f"/api/v1/nodes/{changed}")["peer_group"]
            == "esgf-prod"
        )
        log = federation.config_path(others[0]).parent / "daemon.log"
        told = f"{changed} claims peer groups that its certificate does not grant, they are not shown: evil"
        eventually(lambda: told in log.read_text(), "its author is named")

        federation.start(victim)
        eventually(lambda: all_equal(federation, federation.hosts, 7), "all equal after the restart")
        assert epoch_before < status_of(federation, victim)["epoch"]
        eventually(
            lambda: b'shortName="NEWNAME"' in fetch(federation.http_url(victim), "/registration.xml")[2],
            "the document follows",
        )
        # Documents follow within half a second; equal roots then mean equal documents.
        eventually(
            lambda: (
                len(
                    {
                        _without_stamp(fetch(federation.http_url(host), "/registration.xml")[2])
                        for host in federation.hosts
                    }
                )
                == 1
            ),
            "all documents are equal",
        )
        assert (tmp_path / "nodes" / victim / "state" / "registration.xml").read_bytes() == fetch(
            federation.http_url(victim), "/registration.xml"
        )[2]
        for name in USUAL:
            served = {fetch(federation.http_url(host), f"/{name}")[2] for host in federation.hosts}
            assert served == {(tmp_path / "nodes" / victim / "state" / name).read_bytes()}, name

        # One site's exclusions change its own lists alone.
        path = federation.config_path(victim)
        path.write_text(path.read_text().replace("[esgf]\n", '[esgf]\nexcludes = "excludes.txt"\n'))
        (path.parent / "excludes.txt").write_text(f"^{re.escape(changed)}$ ALL\n")
        assert federation.control(victim).ask("reload")["changed"] == ["exclusions"]
        line = f"https://{changed}/esg-orp/".encode()
        eventually(
            lambda: line not in fetch(federation.http_url(victim), "/esgf_azs.xml")[2],
            "the exclusion is in force",
        )
        assert line in fetch(federation.http_url(others[0]), "/esgf_azs.xml")[2]
        assert f'hostname="{changed}"'.encode() in fetch(federation.http_url(victim), "/registration.xml")[2]
        (path.parent / "excludes.txt").write_text("( ALL\n")
        assert "no regular expression" in federation.control(victim).ask("reload")["refused"][0]
        assert line not in fetch(federation.http_url(victim), "/esgf_azs.xml")[2]
        (path.parent / "excludes.txt").write_text(f"^{re.escape(changed)}$ ALL\n")

        # A node without a daemon, written by hand beside the documents of one site, is in these alone, and marked.
        static = path.parent / "state" / "registration_static.xml"
        static.write_text(STATIC)
        assert federation.control(victim).ask("reload")["changed"] == ["static nodes"]
        by_hand = b'hostname="old.example.org"'
        of_victim = federation.http_url(victim)
        eventually(lambda: by_hand in fetch(of_victim, "/registration.xml")[2], "the document holds it")
        eventually(
            lambda: b"https://old.example.org/orp" in fetch(of_victim, "/esgf_azs.xml")[2], "the list too"
        )
        assert fetch_json(of_victim, "/api/v1/nodes/old.example.org")["status"] == "static"
        assert fetch_json(of_victim, "/api/v1/nodes/old.example.org/explain")["observers"] == []
        assert fetch_json(of_victim, "/api/v1/status")["nodes"]["total"] == 7
        assert by_hand not in fetch(federation.http_url(others[0]), "/registration.xml")[2]
        static.write_text("half")
        assert "no well-formed XML" in federation.control(victim).ask("reload")["refused"][0]
        assert by_hand in fetch(of_victim, "/registration.xml")[2]


def test_any_of_seven_may_be_killed_while_another_changes(tmp_path):
    """Each node in turn is killed, misses a change of its neighbour, comes back, and has it."""
    with a_federation_of_processes(tmp_path, 7) as federation:
        for number, victim in enumerate(federation.hosts):
            changed = federation.hosts[number - 1]
            federation.kill(victim)
            path = federation.config_path(changed).parent / "esgf.properties"
            set_property(path, "node.short.name", f"CHANGE{number}")
            assert federation.control(changed).ask("reload")["changed"] == ["registration"]
            federation.start(victim)
            eventually(lambda: all_equal(federation, federation.hosts, 7), f"equal after {victim} is back")
            body = fetch_json(federation.http_url(victim), f"/api/v1/nodes/{changed}")
            assert body["short_name"] == f"CHANGE{number}"


def test_the_federation_outlives_its_seed(tmp_path):
    """With the seed gone for good and the others restarted one by one it is still one federation."""
    with a_federation_of_processes(tmp_path, 5) as federation:
        seed, *others = federation.hosts
        federation.kill(seed)
        for host in others:
            federation.terminate(host)
            federation.start(host)
            eventually(lambda host=host: status_of(federation, host), f"{host} answers")
        set_property(
            federation.config_path(others[-1]).parent / "esgf.properties", "node.long.name", "after the seed"
        )
        eventually(
            lambda: federation.control(others[-1]).ask("reload")["changed"] == ["registration"], "reload"
        )
        eventually(lambda: all_equal(federation, others, 5), "the survivors are one federation")
        for host in others:
            body = fetch_json(federation.http_url(host), f"/api/v1/nodes/{others[-1]}")
            assert body["long_name"] == "after the seed"


def test_a_restart_serves_the_registry_before_the_first_packet(tmp_path):
    """A node that comes back alone shows everything it knew, the same document as before."""
    with a_federation_of_processes(tmp_path, 3) as federation:
        alone, *others = federation.hosts
        eventually(
            lambda: fetch(federation.http_url(alone), "/registration.xml")[2].count(b"<Node ") == 3, "full"
        )
        for host in others:
            federation.kill(host)
        federation.kill(alone)
        federation.start(alone)
        eventually(lambda: status_of(federation, alone), "it answers")
        assert status_of(federation, alone)["nodes"]["total"] == 3
        assert fetch(federation.http_url(alone), "/registration.xml")[2].count(b"<Node ") == 3


def test_leaving_is_known_everywhere_and_lasts(tmp_path):
    """A node that leaves is out of the documents, is shown as left, and takes part again only by its own start."""
    with a_federation_of_processes(tmp_path, 3) as federation:
        leaver, *others = federation.hosts
        federation.control(leaver).ask("leave")
        eventually(lambda: not federation.is_running(leaver), "the daemon ends")
        assert federation.exit_code(leaver) == 0
        for host in others:
            eventually(
                lambda host=host: (
                    fetch_json(federation.http_url(host), f"/api/v1/nodes/{leaver}")["status"] == "left"
                ),
                "it is shown as left",
            )
            eventually(
                lambda host=host: (
                    b'hostname="%s"' % leaver.encode()
                    not in fetch(federation.http_url(host), "/registration.xml")[2]
                ),
                "it is out of the document",
            )
        federation.start(leaver)
        eventually(
            lambda: fetch_json(federation.http_url(others[0]), f"/api/v1/nodes/{leaver}")["status"] == "up",
            "back",
        )


def test_garbage_on_the_gossip_port_harms_nobody(tmp_path):
    """Plain HTTP, noise and silence on the port are refused with a reason; the federation goes on."""
    with a_federation_of_processes(tmp_path, 2) as federation:
        host, other = federation.hosts
        port = federation.node(host).gossip_port
        for noise in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            os.urandom(2000),
            b"\x16\x03\x01\xff\xff" + b"\0" * 100,
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as stranger:
                stranger.sendall(noise)
                stranger.settimeout(15)
                while stranger.recv(4096):
                    pass
        log = federation.node(host).log_path
        eventually(lambda: log.read_text().count("refused 127.0.0.1") == 3, "three refusals in the log")
        assert "Traceback" not in log.read_text()
        set_property(federation.config_path(other).parent / "esgf.properties", "node.short.name", "STILL")
        federation.control(other).ask("reload")
        eventually(lambda: all_equal(federation, federation.hosts, 2), "the federation goes on")


@pytest.fixture
def one_node(tmp_path):
    """A node that is set up and not started."""
    with DemoFederation(tmp_path, 1) as federation:
        federation.prepare()
        yield federation


def _start_and_fail(federation: DemoFederation) -> tuple[int | None, str]:
    host = federation.hosts[0]
    federation.start(host)
    eventually(lambda: not federation.is_running(host), "the daemon ends")
    return federation.exit_code(host), federation.node(host).log_path.read_text()


def _assert_one_line(log: str, *words: str) -> None:
    errors = [line for line in log.splitlines() if "error:" in line]
    assert len(errors) == 1, log
    assert "Traceback" not in log
    for word in words:
        assert word in errors[0]


def test_a_port_in_use_is_one_line(one_node):
    """The error names the port and what to do; exit code 11."""
    node = one_node.node(one_node.hosts[0])
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", node.gossip_port))
        taken.listen()
        code, log = _start_and_fail(one_node)
    assert code == 11
    _assert_one_line(log, f"127.0.0.1:{node.gossip_port}", "in use", "listen")


def test_a_damaged_database_is_one_line(one_node):
    """The error names the file and the remedy; the file is left as it was."""
    state = one_node.config_path(one_node.hosts[0]).parent / "state"
    state.mkdir(exist_ok=True)
    (state / "registry.db").write_bytes(b"\x00garbage" * 1000)
    code, log = _start_and_fail(one_node)
    assert code == 11
    _assert_one_line(log, "registry.db", "damaged", "move the file away")
    assert (state / "registry.db").read_bytes() == b"\x00garbage" * 1000


def test_a_key_readable_by_others_is_one_line(one_node):
    """A key that its group may read is refused with the command that mends it."""
    key = one_node.config_path(one_node.hosts[0]).parent / "trust" / "node.key"
    key.chmod(0o640)
    code, log = _start_and_fail(one_node)
    assert code == 11
    _assert_one_line(log, "E-MODE", "chmod 600")


def test_a_broken_properties_file_is_one_line(one_node):
    """A host name that is not the certificate's is refused at the origin."""
    folder = one_node.config_path(one_node.hosts[0]).parent
    set_property(folder / "esgf.properties", "esgf.host", "other.example.org")
    code, log = _start_and_fail(one_node)
    assert code == 11
    _assert_one_line(log, "esgf.properties", "esgf.host", "other.example.org")


def test_a_wrong_federation_is_one_line(one_node):
    """A certificate of another federation does not start a node."""
    config = one_node.config_path(one_node.hosts[0])
    text, count = re.subn(r'(?m)^federation = ".*"$', 'federation = "other.example.org"', config.read_text())
    assert count == 1
    config.write_text(text)
    code, log = _start_and_fail(one_node)
    assert code == 11
    _assert_one_line(log, "other.example.org")


def test_a_second_daemon_on_one_state_is_one_line(tmp_path):
    """The same node.toml started twice: the second ends, the first goes on."""
    with a_federation_of_processes(tmp_path, 1) as federation:
        host = federation.hosts[0]
        second = subprocess.run(
            daemon_command(federation.config_path(host)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 11
        _assert_one_line(second.stderr, "in use by another daemon")
        assert federation.is_running(host)
        assert status_of(federation, host)["nodes"]["total"] == 1


def test_a_leave_that_nobody_would_hear_is_refused(tmp_path):
    """Without a link the others would go on to show the node: the command says so and the daemon stays."""
    with a_federation_of_processes(tmp_path, 2) as federation:
        alone, other = federation.hosts
        federation.kill(other)
        eventually(lambda: status_of(federation, alone)["links"] == 0, "the link is down")
        with pytest.raises(CommandError, match="no peer is linked"):
            federation.control(alone).ask("leave")
        assert federation.is_running(alone)
