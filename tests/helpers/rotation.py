"""A rotation by command, for tests: what nodes report, each step, all of them in a row. No test lives here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.trust import FEDERATION, TestFederation
from helpers.trust_admin import Ran, admin, run

HOST, OTHER = "node.example.org", "other.example.org"
PASSPHRASE = "six random words make a passphrase"


def report(directory: Path, bundle: int, issuer: int = 1, **others: tuple[int, int]) -> Path:
    """Write what the nodes say: HOST and OTHER, all at one bundle and issuing CA but those named."""
    rows = {
        HOST: (bundle, issuer),
        OTHER: (bundle, issuer),
        **{name.replace("_", "."): row for name, row in others.items()},
    }
    nodes = [
        {"host": host, "bundle": version, "issuer": f"CN=Issuing G{number},O={FEDERATION}"}
        for host, (version, number) in rows.items()
    ]
    path = directory / "report.json"
    path.write_text(json.dumps({"nodes": nodes}))
    return path


def roots(federation: TestFederation, *words: object) -> Ran:
    """Run a command of roots at the administration."""
    return run("roots", *words, *admin(federation), "--json")


def done(ran: Ran) -> Any:
    """Return what a command said that must have worked."""
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def rotate(federation: TestFederation, tmp_path: Path) -> None:
    """Do the whole rotation at the administration."""
    done(roots(federation, "prepare", "--no-passphrase", "--from", report(tmp_path, 1)))
    done(roots(federation, "activate", "issuing-g2", "--from", report(tmp_path, 2)))
    done(run("cert", "reissue", "--all", *admin(federation), "--json"))
    done(roots(federation, "retire", "root-g1", "--from", report(tmp_path, 2, 2)))
