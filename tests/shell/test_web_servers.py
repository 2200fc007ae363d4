"""The snippets for nginx and Apache, with the real servers in front of a real daemon: what readers ask for, and no more."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from esgf_gossip.demo.processes import DemoFederation
from helpers.daemons import DEADLINE_S, eventually

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
PUBLIC = (
    *(
        "/registration.xml",
        "/esgf_idp.xml",
        "/esgf_ats.xml",
        "/esgf_azs.xml",
        "/esgf_shards.xml",
        "/las_servers.xml",
    ),
    *("/esgf-nm/registration.xml", "/esgf-nm/", "/esgf-nm/node-props.json", "/esgf-nm/health-check-api"),
    "/esgf-node-manager/registration.xml",
)
PRIVATE = (
    *(
        "/",
        "/this-node",
        "/trust",
        "/metrics",
        "/api/v1/status",
        "/openapi.json",
        "/registration.xml/x",
        "/healthz",
    ),
    *("/esgf-nm/../this-node", "/esgf-nm/%2e%2e/this-node", "/esgf-nmx", "/x/registration.xml"),
)
NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; {user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{ listen 127.0.0.1:{port}; root {folder}/empty; include {snippet}; }}
}}
"""
APACHE = """
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
Mutex file:{folder}
DocumentRoot {folder}/empty
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
{user}
Include {snippet}
"""
APACHE_MODULES = Path("/usr/lib/apache2/modules")


@contextmanager
def nginx(folder: Path, snippet: Path, port: int):
    """Run nginx with our snippet in a server of its own."""
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "conf").write_text(NGINX.format(folder=folder, snippet=snippet, port=port, user=user))
    with _running(
        [_program("nginx"), "-c", str(folder / "conf"), "-e", str(folder / "error.log")], folder, port
    ):
        yield


@contextmanager
def apache(folder: Path, snippet: Path, port: int):
    """Run Apache with our snippet in its main server."""
    user = "User www-data\nGroup www-data"
    (folder / "conf").write_text(
        APACHE.format(
            folder=folder,
            snippet=snippet,
            port=port,
            modules=APACHE_MODULES,
            user=user if os.geteuid() == 0 else "",
        )
    )
    with _running(
        [_program("apache2"), "-d", str(folder), "-f", str(folder / "conf"), "-DFOREGROUND"], folder, port
    ):
        yield


@contextmanager
def _running(command: list[str], folder: Path, port: int):
    (folder / "empty").mkdir()
    with (folder / "told").open("wb") as told:
        server = subprocess.Popen(command, stdout=told, stderr=told, process_group=0)
    try:
        eventually(lambda: _listens(port) or server.poll() is not None, f"{command[0]} listens")
        assert server.poll() is None, (folder / "told").read_text()
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(DEADLINE_S)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _status(port: int, path: str, method: str = "GET") -> int:
    """Ask as a reader outside does: by the name of the site."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request(method, path, headers={"Host": "data.example.org"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def _program(name: str) -> str | None:
    # Where Debian has them is not on everybody's path.
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


def _needs(program: str):
    return pytest.mark.skipif(
        _program(program) is None and os.environ.get("CI") != "true", reason=f"{program} is not installed"
    )


@pytest.fixture(scope="module")
def daemon_port(tmp_path_factory):
    """The HTTP port of a real daemon."""
    with DemoFederation(tmp_path_factory.mktemp("federation"), 1) as federation:
        federation.prepare()
        federation.start_all()
        port = int(federation.http_url(federation.hosts[0]).rpartition(":")[2])
        eventually(lambda: _listens(port), "the daemon listens")
        eventually(lambda: _status(port, "/registration.xml") == 421, "the daemon knows its names")
        yield port


@pytest.mark.parametrize(
    "server", [pytest.param(nginx, marks=_needs("nginx")), pytest.param(apache, marks=_needs("apache2"))]
)
def test_readers_get_the_public_paths_and_no_more(server, daemon_port, tmp_path):
    """All that programs of other sites read is there under the site's own name; log, settings and API are not."""
    text = (PACKAGING / server.__name__ / "esgf-gossip.conf").read_text()
    snippet = tmp_path / "snippet"
    snippet.write_text(text.replace("127.0.0.1:8950", f"127.0.0.1:{daemon_port}"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with server(tmp_path, snippet, port):
        assert {path: _status(port, path) for path in PUBLIC} == dict.fromkeys(PUBLIC, 200)
        assert _status(port, "/registration.xml", "HEAD") == 200
        refused = {path: _status(port, path) for path in PRIVATE}
        assert {path for path, status in refused.items() if status not in (400, 403, 404)} == set(), refused
        for method in ("POST", "PUT", "DELETE"):
            assert _status(port, "/registration.xml", method) == 403
