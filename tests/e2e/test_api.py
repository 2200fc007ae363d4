"""The API as programs find it: schemathesis against a real daemon, and the paths that were promised."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from helpers.daemons import a_federation_of_processes, eventually, fetch, fetch_json

# What the contract of this project promises; a path keeps its name for ever.
PROMISED = {
    "/",
    "/registration.xml",
    "/esgf_idp.xml",
    "/esgf_ats.xml",
    "/esgf_azs.xml",
    "/esgf_shards.xml",
    "/las_servers.xml",
    "/api/v1/status",
    "/api/v1/nodes",
    "/api/v1/nodes/{host}",
    "/api/v1/nodes/{host}/explain",
    "/api/v1/nodes/{host}/history",
    "/api/v1/services",
    "/api/v1/documents",
    "/api/v1/documents/{project}/{application}/{name}",
    "/api/v1/datasets/events",
    "/api/v1/datasets/check",
    "/api/v1/events",
    "/openapi.json",
    "/metrics",
    "/healthz",
    "/readyz",
}
LEGACY = ("registration.xml", "node-props.json", "metrics.json", "health-check-api", "")


def _schemathesis():
    """Return the program, beside the Python that runs the tests."""
    found = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert found is not None, "schemathesis is one of the test requirements"
    return found


def test_schemathesis_finds_nothing_and_the_promised_paths_are_there(tmp_path):
    """Every described path, asked rightly, wrongly and in sequences, answers as described; three real daemons."""
    with a_federation_of_processes(tmp_path, 3) as federation:
        url = federation.http_url(federation.hosts[0])
        eventually(lambda: fetch(url, "/readyz")[0] == 200, "the node is ready")
        federation.control(federation.hosts[0]).ask("document-put", document="CMIP6/a/b", base64="eA==")
        federation.control(federation.hosts[0]).ask("dataset-say", type="published", dataset="CMIP6.a.b.v1")
        described = set(fetch_json(url, "/openapi.json")["paths"])
        assert described >= PROMISED
        assert {fetch(url, f"/esgf-nm/{name}")[0] for name in LEGACY} == {200}
        # The stream of events has no end.
        command = [_schemathesis(), "run", f"{url}/openapi.json", "--exclude-path", "/api/v1/events"]
        command += [
            "--checks",
            "all",
            "--max-examples",
            "25",
            "--seed",
            "1",
            "--no-color",
            "--generation-database",
            "none",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-5000:]
        assert "Tested: " in done.stdout
        log = federation.config_path(federation.hosts[0]).parent / "daemon.log"
        assert "Traceback" not in log.read_text()
