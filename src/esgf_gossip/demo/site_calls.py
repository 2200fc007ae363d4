"""
What goes on at a site of ``demo --tracking``: its publisher's calls through the index proxy, lines of its web server's log.

Nothing is handed to a daemon by another way. Calls wait for the answer; an answer that is not 200 is a ValueError.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import attrs

FILES: Final = ("185001-189912", "190001-194912", "195001-201412")
_HTTP_S: Final = 10.0
_FORM: Final = "application/x-www-form-urlencoded"


@attrs.frozen
class Place:
    """Where a node of the story is: its name, where its index proxy and its HTTP resource listen, its folder."""

    host: str
    tracking_port: int
    http_port: int
    folder: Path
    address: str = "127.0.0.1"

    @property
    def access_log(self) -> Path:
        """The log of its web server, which is made up."""
        return self.folder / "access.log"

    @property
    def users_file(self) -> Path:
        """The users it knows."""
        return self.folder / "users.csv"


def openid(home: Place, name: str) -> str:
    """Return an OpenID as the identity provider of a node gives it."""
    return f"https://{home.host}/esgf-idp/openid/{name}"


def publish(place: Place, master_id: str, version: str, *, is_replica: bool) -> None:
    """Publish as a publisher does: each file, then the dataset."""
    instance_id = f"{master_id}.v{version}"
    record = f"{instance_id}|{place.host}"
    common = {
        "version": version,
        "data_node": place.host,
        "index_node": place.host,
        "replica": str(is_replica),
        "latest": "True",
        "project": "CMIP6",
    }
    for name in file_names(master_id):
        url = f"https://{place.host}{file_path(master_id, version, name)}"
        fields = {
            "id": f"{instance_id}.{name}|{place.host}",
            "type": "File",
            "dataset_id": record,
            "title": name,
            "instance_id": f"{instance_id}.{name}",
            "master_id": f"{master_id}.{name}",
            "url": f"{url}|application/netcdf|HTTPServer",
            "checksum": checksum(version),
            "checksum_type": "SHA256",
            **common,
        }
        call(place, "publish", _document(fields))
    fields = {
        "id": record,
        "type": "Dataset",
        "title": master_id,
        "instance_id": instance_id,
        "master_id": master_id,
        "number_of_files": str(len(FILES)),
        **common,
    }
    call(place, "publish", _document(fields))


def retract(place: Place, master_id: str, version: str) -> None:
    """Retract the copy of a place as a publisher does."""
    call(place, "retract", f"id={master_id}.v{version}%7C{place.host}", _FORM)


def fetch(place: Place, openids: Sequence[str], master_id: str, version: str) -> None:
    """Let users download all files of a version from a place."""
    log_downloads(place, openids, [file_path(master_id, version, name) for name in file_names(master_id)])


def log_downloads(place: Place, openids: Sequence[str], paths: Sequence[str]) -> None:
    """Write lines into the log of a place's web server, as if users had downloaded files now."""
    stamp = datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S %z")
    lines = [
        f'127.0.0.1 - {one} [{stamp}] "GET {path} HTTP/1.1" 200 1048576 "-" "Wget/1.21" "-" [0.4]\n'
        for one in openids
        for path in paths
    ]
    with place.access_log.open("a") as log:
        log.write("".join(lines))


def status(place: Place, master_id: str, version: str) -> Mapping[str, Any]:
    """Ask a node how it says that a version stands."""
    wanted = json.dumps([f"{master_id}.v{version}"])
    answer = ask(
        place, place.http_port, "/api/v1/datasets/check", wanted, {"Content-Type": "application/json"}
    )
    found: Mapping[str, Any] = json.loads(answer)["datasets"][0]
    return found


def call(place: Place, operation: str, body: str, content_type: str = "") -> None:
    """Let a publisher call the index through the proxy of a place."""
    headers = {"Content-Type": content_type} if content_type else {}
    ask(place, place.tracking_port, f"/esg-search/ws/{operation}", body, headers)


def ask(
    place: Place,
    port: int,
    path: str,
    body: str,
    headers: Mapping[str, str],
    wanted: int = http.client.OK,
) -> bytes:
    """
    POST to a place; return the body of the answer.

    Raises:
        ValueError: the answer is not the wanted one.
        OSError, http.client.HTTPException: there is none.
    """
    connection = http.client.HTTPConnection(place.address, port, timeout=_HTTP_S)
    try:
        connection.request("POST", path, body.encode(), dict(headers))
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status != wanted:
        raise ValueError(f"POST {path} at port {port}: {answer.status} {content[:200]!r}")
    return content


def file_names(master_id: str) -> list[str]:
    """Return the names of the files of a dataset, which are those of CMIP6."""
    facets = master_id.split(".")
    return [
        f"{facets[7]}_{facets[6]}_{facets[3]}_{facets[4]}_{facets[5]}_{facets[8]}_{span}.nc" for span in FILES
    ]


def file_path(master_id: str, version: str, name: str) -> str:
    """Return the path of a file on a THREDDS server."""
    return f"/thredds/fileServer/css03_data/{master_id.replace('.', '/')}/v{version}/{name}"


def checksum(version: str) -> str:
    """Return the SHA-256 that all files of a version are said to have: of each version another."""
    return version * (64 // len(version))


def _document(fields: Mapping[str, str]) -> str:
    lines = "".join(f'  <field name="{name}">{escape(value)}</field>\n' for name, value in fields.items())
    return f"<doc>\n{lines}</doc>"
