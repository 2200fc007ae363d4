"""A secret handed to one node of a real federation arrives at the node it is sealed to, and nowhere else."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

from esgf_gossip.cli.control_client import ControlClient
from esgf_gossip.config import load
from esgf_gossip.demo.processes import DemoFederation
from helpers.daemons import all_equal, eventually, status_of
from helpers.trust_admin import Ran, run

PLAIN = "Correct-Horse-Battery-Staple-7f"
HOOK = """#!/bin/sh
test "$(stat -c %a "$ESGF_GOSSIP_SECRET_PATH")" = 600 || exit 3
echo "$ESGF_GOSSIP_SECRET_NAME $ESGF_GOSSIP_SECRET_VERSION" >> {out}
cat "$ESGF_GOSSIP_SECRET_PATH"
cat "$ESGF_GOSSIP_SECRET_PATH" >&2
"""


def _good(*words: object, stdin: str | None = None) -> Ran:
    ran = run(*words, stdin=stdin)
    assert ran.code == 0, ran.err
    return ran


def _operator(federation: DemoFederation, directory: Path) -> Path:
    """Make key and certificate of somebody who may seal."""
    trust = federation.directory / "trust"
    admin = ("--dir", trust, "--private", trust / "private")
    policy = trust / "policy.toml"
    policy.write_text(re.sub(r"(?m)^roles = .*$", 'roles = ["secret-admin"]', policy.read_text()))
    name = re.search(r'(?m)^federation = "(.*)"$', policy.read_text())
    assert name is not None
    words = ("--out", directory, "--federation", name[1], "--dns", "operator.example.org")
    made = json.loads(_good("cert", "request", *words, "--role", "secret-admin", "--json").out)
    _good("cert", "import", made["request"], *admin)
    words = ("operator.example.org", "--fingerprint", made["fingerprint"])
    done = json.loads(_good("cert", "approve", *words, *admin, "--json").out)
    place = ("--out", directory, "--federation", name[1], "--node", "operator.example.org")
    _good("cert", "install", done["bundle"], *place, "--root-fingerprint", done["root_sha256"])
    return directory


def test_a_secret_arrives_and_the_hook_is_told_once(tmp_path: Path) -> None:
    """Sealed with the key the daemons publish, imported on one node, opened on another; receipts say so; no log has a word of it."""
    told, hook = tmp_path / "told", tmp_path / "hook.sh"
    hook.write_text(HOOK.format(out=told))
    hook.chmod(0o755)
    with DemoFederation(tmp_path / "federation", 4) as federation:
        federation.prepare()
        first, second, receiver, third = federation.hosts
        config = federation.config_path(receiver)
        assert "[trust]" in config.read_text()
        config.write_text(config.read_text().replace("[trust]", f'[trust]\nsecret_hook = ["{hook}"]', 1))
        federation.start_all()
        eventually(lambda: all_equal(federation, federation.hosts, 4), "four converge")
        trust = federation.directory / "trust"
        admin = ("--dir", trust, "--private", trust / "private")
        signer = _operator(federation, tmp_path / "operator")
        for version in (1, 2):
            envelope = tmp_path / f"{version}.sealed"
            words = ("--to", receiver, "--name", "esgcet", "--in", "-", "--signer", signer, "--out", envelope)
            _good("secret", "seal", *words, *admin, "--config", federation.config_path(first), stdin=PLAIN)
            _good("secret", "import", envelope, "--config", federation.config_path(second))
            eventually(
                lambda version=version: (
                    told.exists() and told.read_text().splitlines()[-1:] == [f"esgcet {version}"]
                ),
                "the hook",
            )
        assert told.read_text().splitlines() == ["esgcet 1", "esgcet 2"]
        path = config.parent / "trust" / "secrets" / "esgcet"
        assert (path.read_text(), path.stat().st_mode & 0o777) == (PLAIN, 0o600)
        seen = ("secret", "status", "esgcet", *admin, "--config", federation.config_path(third), "--json")
        eventually(lambda: json.loads(_good(*seen).out)[0]["done"], "the receipt is with everybody")
        for host in (first, second, third):
            assert not (federation.config_path(host).parent / "trust" / "secrets").exists()
        federation.terminate(receiver)
        federation.start(receiver)
        eventually(lambda: status_of(federation, receiver).get("links", 0) > 0, "it is back")
        eventually(lambda: all_equal(federation, federation.hosts, 4), "one root again")
        assert told.read_text().splitlines() == ["esgcet 1", "esgcet 2"], "the hook was told twice"
        for host in federation.hosts:
            log = federation.node(host).log_path.read_text()
            assert PLAIN not in log
            assert "Traceback" not in log


def test_who_was_off_gets_it_later_and_a_failing_hook_is_seen_by_its_code_alone(tmp_path: Path) -> None:
    """Sealed to a node that is off, after a change of its seal key; there the hook fails, is told again after a restart, and nothing is said."""
    told, hook = tmp_path / "told", tmp_path / "hook.sh"
    hook.write_text(HOOK.format(out=told) + "exit 7\n")
    hook.chmod(0o755)
    with DemoFederation(tmp_path / "federation", 3) as federation:
        federation.prepare()
        first, receiver, third = federation.hosts
        config = federation.config_path(receiver)
        config.write_text(config.read_text().replace("[trust]", f'[trust]\nsecret_hook = ["{hook}"]', 1))
        federation.start_all()
        eventually(lambda: all_equal(federation, federation.hosts, 3), "three converge")
        key = tmp_path / "receiver.sealkey"
        _good("secret", "key", "--rotate", "--out", key, "--config", config)
        report = federation.config_path(first)
        wanted = base64.b64encode(key.read_bytes()).decode()
        eventually(lambda: _seal_of(report, receiver) == wanted, "the new seal key is with everybody")
        federation.terminate(receiver)
        trust = federation.directory / "trust"
        admin = ("--dir", trust, "--private", trust / "private")
        envelope = tmp_path / "x.sealed"
        words = ("--to", receiver, "--name", "esgcet", "--in", "-", "--out", envelope)
        signer = ("--signer", _operator(federation, tmp_path / "operator"))
        _good("secret", "seal", *words, *signer, *admin, "--config", report, stdin=PLAIN)
        _good("secret", "import", envelope, "--config", federation.config_path(third))
        federation.start(receiver)
        failure = "the hook for secret esgcet 1 failed: exit code 7"
        for runs in (1, 2):
            eventually(
                lambda: failure in str(status_of(federation, receiver).get("trust")), "the failure is shown"
            )
            assert told.read_text().splitlines() == ["esgcet 1"] * runs
            ran = run("check", "--config", config)
            assert failure in ran.out
            if runs == 1:
                federation.terminate(receiver)
                federation.start(receiver)
        for host in federation.hosts:
            assert PLAIN not in federation.node(host).log_path.read_text()
        assert PLAIN not in json.dumps(status_of(federation, receiver))


def _seal_of(config: Path, host: str) -> str | None:
    nodes = ControlClient(load(config).control_socket).ask("trust")["nodes"]
    return next((str(one["seal"]) for one in nodes if one["host"] == host), None)
