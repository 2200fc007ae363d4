"""Every node of a running federation gets a new certificate, then a new key, and nobody notices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.trust import pem
from helpers.daemons import a_federation_of_processes, all_equal, eventually, fetch_json, status_of
from helpers.trust_admin import Ran, run

COUNT = 7


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoFederation]:
    """Run seven daemons for both tests."""
    with a_federation_of_processes(tmp_path_factory.mktemp("seven") / "federation", COUNT) as found:
        yield found


def _serial(federation: DemoFederation, host: str) -> int:
    path = federation.config_path(host).parent / "trust" / "chain.pem"
    return pem.certificates(pem.read(path), host)[0].serial_number


def _admin(federation: DemoFederation, *words: object) -> Ran:
    trust = federation.directory / "trust"
    ran = run(*words, "--dir", trust, "--private", trust / "private", "--json")
    assert ran.code == 0, ran.err
    return ran


def _nobody_was_missed(federation: DemoFederation, marks: dict[str, int]) -> None:
    """Check the logs: since the marks nobody was called anything but up, and nothing was refused."""
    for host in federation.hosts:
        said = federation.node(host).log_path.read_text()[marks[host] :]
        assert "is unreachable" not in said
        assert "is suspect" not in said
        assert "Traceback" not in said
    for host in federation.hosts:
        nodes = fetch_json(federation.http_url(host), "/api/v1/nodes")
        assert {node["status"] for node in nodes} == {"up"}
        assert len(nodes) == COUNT


def _marks(federation: DemoFederation) -> dict[str, int]:
    return {host: len(federation.node(host).log_path.read_text()) for host in federation.hosts}


def test_all_nodes_are_renewed_by_one_delivery(federation: DemoFederation) -> None:
    """One reissue, one delivery to one node: all seven serve under new certificates, no link is lost, no node is missed."""
    marks = _marks(federation)
    before = {host: _serial(federation, host) for host in federation.hosts}
    ran = _admin(federation, "cert", "reissue", "--all")
    files = [one["bundle"] for one in json.loads(ran.out)["reissued"]]
    assert len(files) == COUNT
    done = run("cert", "deliver", *files, "--config", federation.config_path(federation.hosts[3]), "--json")
    assert (done.code, json.loads(done.out)["daemon"]) == (0, "reloaded")
    for host in federation.hosts:
        eventually(
            lambda host=host: _serial(federation, host) != before[host], f"{host} has its new certificate"
        )
    eventually(lambda: all_equal(federation, federation.hosts, COUNT), "one root")
    _nobody_was_missed(federation, marks)


def test_a_new_key_is_collected_and_delivered_by_other_nodes(federation: DemoFederation) -> None:
    """The old key vouches for the new one and serves until its certificate is here; then it is retired, over restarts too."""
    host, carrier, *_ = federation.hosts
    marks = _marks(federation)
    directory = federation.config_path(host).parent / "trust"
    before, old_key = _serial(federation, host), (directory / "node.key").read_bytes()
    made = json.loads(run("cert", "renew", "--rekey", "--config", federation.config_path(host), "--json").out)
    assert made["fingerprint"]
    assert (directory / "node.key").read_bytes() == old_key
    asked = ("cert", "collect", "--config", federation.config_path(federation.hosts[-1]))
    signed = eventually(
        lambda: json.loads(_admin(federation, *asked).out)["signed"], "the request is with everybody"
    )
    assert [one["node"] for one in signed] == [host]
    assert json.loads(_admin(federation, *asked).out) == {"signed": [], "refused": []}
    bundle = Path(signed[0]["bundle"])
    assert run("cert", "deliver", bundle, "--config", federation.config_path(carrier)).code == 0
    eventually(lambda: _serial(federation, host) != before, "the new certificate is here")
    eventually(lambda: not (directory / "renewal.key").exists(), "the new key is in its place")
    assert (directory / "node.key").read_bytes() != old_key
    assert (directory / "retired" / f"{before:x}.key").read_bytes() == old_key
    assert (directory / "retired" / f"{before:x}.key").stat().st_mode & 0o777 == 0o600
    eventually(lambda: all_equal(federation, federation.hosts, COUNT), "one root")
    _nobody_was_missed(federation, marks)
    federation.terminate(host)
    federation.start(host)
    eventually(lambda: status_of(federation, host).get("links", 0) > 2, "it is linked under the new key")
    eventually(lambda: all_equal(federation, federation.hosts, COUNT), "one root again")
