"""A root is replaced under thirteen running daemons, one of them switched off all the while and back afterwards."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from esgf_gossip.cli.failures import CommandError
from esgf_gossip.demo.processes import DemoFederation
from esgf_gossip.trust import pem
from helpers.daemons import (
    a_federation_of_processes,
    all_equal,
    eventually,
    fetch_json,
    set_property,
    status_of,
)
from helpers.trust_admin import Ran, run

COUNT = 13
WITHIN_S = 90.0


def _trust(federation: DemoFederation, host: str) -> Path:
    return federation.config_path(host).parent / "trust"


def _admin(federation: DemoFederation, *words: object) -> Ran:
    trust = federation.directory / "trust"
    return run(*words, "--dir", trust, "--private", trust / "private", "--json")


def _said(federation: DemoFederation, host: str) -> dict[str, dict[str, Any]]:
    try:
        return {one["host"]: one for one in federation.control(host).ask("trust")["nodes"]}
    except (CommandError, OSError):
        return {}


def _all_say(federation: DemoFederation, at: str, hosts: list[str], version: int) -> bool:
    said = _said(federation, at)
    return all(said.get(host, {}).get("bundle") == version for host in hosts)


def _issuer(federation: DemoFederation, host: str) -> str:
    leaf = pem.certificates(pem.read(_trust(federation, host) / "chain.pem"), host)[0]
    return leaf.issuer.rfc4514_string()


def _roots(federation: DemoFederation, host: str) -> list[str]:
    folder = _trust(federation, host) / "roots"
    return sorted(
        pem.certificate(pem.read(path), host).subject.rfc4514_string() for path in folder.glob("*.pem")
    )


def _long_name(federation: DemoFederation, at: str, host: str) -> str:
    return next(
        (
            node["long_name"]
            for node in fetch_json(federation.http_url(at), "/api/v1/nodes")
            if node["host"] == host
        ),
        "",
    )


def _rename(federation: DemoFederation, host: str, name: str) -> None:
    (properties,) = federation.config_path(host).parent.rglob("esgf.properties")
    set_property(properties, "node.long.name", name)


def _import(federation: DemoFederation, host: str, ran: Ran) -> None:
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["complete"], told
    done = run("roots", "import", told["file"], "--config", federation.config_path(host), "--json")
    assert (done.code, json.loads(done.out)["daemon"]) == (0, "reloaded"), done.err


def test_a_root_is_rotated_under_a_running_federation(tmp_path: Path) -> None:
    """Prepared, activated, all re-issued, the old one retired: nobody who runs is missed, no change is lost, who was off follows."""
    with a_federation_of_processes(tmp_path / "federation", COUNT) as federation:
        *running, away = federation.hosts
        first, second, third, *_ = running
        config = ("--config", federation.config_path(first))
        # What it changes before it goes must be known to all after it is back, and what others change meanwhile to it.
        _rename(federation, away, "changed before it went")
        federation.control(away).ask("reload")
        eventually(
            lambda: _long_name(federation, first, away) == "changed before it went",
            "the change is everywhere",
        )
        federation.terminate(away)

        ran = _admin(federation, "roots", "prepare", "--no-passphrase", *config)
        _import(federation, second, ran)
        eventually(lambda: _all_say(federation, first, running, 2), "bundle 2 is in force", WITHIN_S)

        refused = _admin(federation, "roots", "activate", "issuing-g2", *config)
        assert (refused.code, refused.error) == (4, "E-LAG")
        assert away in refused.err
        lag = ("--accept-lag", away)
        assert _admin(federation, "roots", "activate", "issuing-g2", *config, *lag).code == 0
        early = _admin(federation, "roots", "retire", "root-g1", *config, *lag)
        assert (early.code, early.error) == (4, "E-LAG"), "all still have certificates of the old root"

        ran = _admin(federation, "cert", "reissue", "--all")
        assert ran.code == 0, ran.err
        files = [one["bundle"] for one in json.loads(ran.out)["reissued"]]
        assert run("cert", "deliver", *files, "--config", federation.config_path(third)).code == 0
        for host in running:
            eventually(
                lambda host=host: "Issuing G2" in _issuer(federation, host), f"{host} is re-issued", WITHIN_S
            )
        _rename(federation, second, "changed while it was off")
        federation.control(second).ask("reload")
        eventually(
            lambda: all("Issuing G2" in _said(federation, first)[host]["issuer"] for host in running),
            "all publish under the new root",
            WITHIN_S,
        )

        assert _admin(federation, "roots", "retire", "root-g1", *config).error == "E-LAG"
        _import(federation, third, _admin(federation, "roots", "retire", "root-g1", *config, *lag))
        eventually(lambda: _all_say(federation, first, running, 3), "bundle 3 is in force", WITHIN_S)
        for host in running:
            assert ["Root G2" in name for name in _roots(federation, host)] == [True], host
        eventually(
            lambda: all(status_of(federation, host)["links"] > 2 for host in running), "links stand", WITHIN_S
        )

        federation.start(away)
        eventually(lambda: "Issuing G2" in _issuer(federation, away), "it has its new certificate", WITHIN_S)
        eventually(lambda: _all_say(federation, first, federation.hosts, 3), "all say bundle 3", WITHIN_S)
        eventually(lambda: all_equal(federation, federation.hosts, COUNT), "one root", WITHIN_S)
        assert ["Root G2" in name for name in _roots(federation, away)] == [True]
        for host in federation.hosts:
            assert _long_name(federation, host, away) == "changed before it went"
            assert _long_name(federation, host, second) == "changed while it was off"
            said = federation.node(host).log_path.read_text()
            assert "Traceback" not in said, host
            missed = set(re.findall(r"(\S+) is unreachable", said))
            assert missed <= {away}, (host, missed)
