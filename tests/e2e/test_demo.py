"""The demo as a user runs it, and the documents it serves against the real ones of 2015."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from esgf_gossip.views.registration_xml import root_timestamp_ms
from helpers.daemons import (
    a_federation_of_processes,
    all_equal,
    eventually,
    fetch,
    fetch_json,
    set_property,
    status_of,
)
from helpers.site import nodes_of, real_nodes

# What the golden record leaves out: stamps, addresses of people, metrics, host certificates.
APART = {"Metrics", "PEMCert"}


def shown(node):
    """Return attributes and elements of a served node as the golden record has them."""
    _, attributes, children = node
    attributes = {
        name: value for name, value in attributes.items() if name not in ("timeStamp", "supportEmail")
    }
    return attributes, [child for child in children if child[0] not in APART]


def known(node):
    """Return a node of the golden record with what the schema demands and no old writer wrote."""
    children = [
        [name, {**attributes, "endpoint": ""} if name == "GeoLocation" else attributes, inner]
        for name, attributes, inner in node["children"]
    ]
    return {"dn": "", **node["attributes"]}, children


PROGRAM = Path(sys.executable).parent / "esgf-gossip"


def test_thirteen_real_sites_serve_what_they_served_in_2015(tmp_path):
    """All 13 roots are equal, and every node serves each site's real attributes and elements, groups included."""
    expected = sorted((known(node) for node in real_nodes()), key=lambda node: node[0]["hostname"])
    with a_federation_of_processes(tmp_path / "a folder", 13) as federation:
        assert len({status_of(federation, host)["root"] for host in federation.hosts}) == 1
        for host in federation.hosts:
            url = federation.http_url(host)
            eventually(lambda url=url: fetch(url, "/registration.xml")[2].count(b"<Node ") == 13, "complete")
            assert expected == [shown(node) for node in nodes_of(fetch(url, "/registration.xml")[2])]


def test_the_demo_reports_convergence_as_one_json_object(tmp_path):
    """``demo --json`` ends with one line that a program can read, and leaves the folder it was given."""
    result = subprocess.run(
        [PROGRAM, "demo", "--nodes", "3", "--seconds", "1", "--dir", str(tmp_path / "d"), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["nodes"] == 3
    assert report["converged"] is True
    assert len(bytes.fromhex(report["root"])) == 32
    assert report["converge_seconds"] > 0
    assert len(report["http"]) == 3
    assert report["directory"] == str(tmp_path / "d")
    assert len(os.listdir(tmp_path / "d" / "nodes")) == 3


def test_http_answers_conditional_requests(tmp_path):
    """ETag, 304 and kept gzip over a real connection; health and readiness are told."""
    with a_federation_of_processes(tmp_path, 2) as federation:
        url = federation.http_url(federation.hosts[0])
        eventually(lambda: fetch(url, "/registration.xml")[2].count(b"<Node ") == 2, "complete")
        status, headers, body = fetch(url, "/registration.xml")
        assert status == 200
        assert headers["content-type"].startswith("application/xml")
        assert fetch(url, "/registration.xml", {"If-None-Match": headers["etag"]})[0] == 304
        packed = fetch(url, "/registration.xml", {"Accept-Encoding": "gzip"})
        assert packed[1]["content-encoding"] == "gzip"
        assert len(packed[2]) < len(body)
        assert fetch(url, "/healthz")[0] == 200
        eventually(lambda: fetch(url, "/readyz")[0] == 200, "ready once a peer has shown the same root")
        assert fetch(url, "/api/v1/status", {"Host": "evil.example.org"})[0] == 421


def test_sighup_reloads_like_the_command(tmp_path):
    """A changed property is published after SIGHUP; a broken file leaves the registration in force."""
    with a_federation_of_processes(tmp_path, 1) as federation:
        host = federation.hosts[0]
        properties = federation.config_path(host).parent / "esgf.properties"
        set_property(properties, "node.short.name", "AFTERHUP")
        os.kill(federation.process_id(host), signal.SIGHUP)
        url = federation.http_url(host)
        eventually(
            lambda: fetch_json(url, f"/api/v1/nodes/{host}")["short_name"] == "AFTERHUP",
            "the change is published",
        )
        stamp = root_timestamp_ms(fetch(url, "/registration.xml")[2])
        good = properties.read_bytes()
        properties.write_bytes(b"esgf.host=other.example.org\n")
        findings = federation.control(host).ask("reload")["refused"]
        assert len(findings) == 1
        assert "esgf.host" in findings[0]
        assert "stays" in findings[0]
        assert fetch_json(url, f"/api/v1/nodes/{host}")["short_name"] == "AFTERHUP"
        properties.write_bytes(good)
        assert federation.control(host).ask("reload") == {"changed": [], "refused": [], "findings": []}
        assert stamp <= root_timestamp_ms(fetch(url, "/registration.xml")[2])


def test_a_full_disk_stops_nothing_and_is_made_good(tmp_path):
    """A node whose disk takes no more goes on in memory, says so, and writes what it owes when it can."""
    with a_federation_of_processes(tmp_path, 2) as federation:
        full, other = federation.hosts
        pid = federation.process_id(full)
        # A bound on the size of any file it grows: the database's log cannot be appended to.
        size = (federation.config_path(full).parent / "state" / "registry.db-wal").stat().st_size
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
        properties = federation.config_path(other).parent / "esgf.properties"
        set_property(properties, "node.short.name", "WHILEFULL")
        federation.control(other).ask("reload")
        state = eventually(
            lambda: (found := status_of(federation, full)).get("storage_error") and found, "the fault is told"
        )
        assert "registry.db" in state["storage_error"]
        assert fetch_json(federation.http_url(full), f"/api/v1/nodes/{other}")["short_name"] == "WHILEFULL"
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
        eventually(lambda: "storage_error" not in status_of(federation, full), "what is owed is written")
        federation.kill(full)
        federation.kill(other)
        federation.start(full)
        eventually(lambda: status_of(federation, full), "it is back, alone")
        assert fetch_json(federation.http_url(full), f"/api/v1/nodes/{other}")["short_name"] == "WHILEFULL"


def test_fourteen_nodes_take_part_through_rings(tmp_path):
    """Above the mesh every node links to a few neighbours only, and all still hold the same set."""
    with a_federation_of_processes(tmp_path, 14) as federation:
        set_property(
            federation.config_path(federation.hosts[-1]).parent / "esgf.properties", "node.short.name", "RING"
        )
        federation.control(federation.hosts[-1]).ask("reload")
        eventually(lambda: all_equal(federation, federation.hosts, 14), "equal again")
        body = fetch_json(federation.http_url(federation.hosts[0]), f"/api/v1/nodes/{federation.hosts[-1]}")
        assert body["short_name"] == "RING"
