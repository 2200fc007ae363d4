"""
The story of ``demo --tracking``: a dataset published, replicated, downloaded, retracted, and who is told.

A dataset appears at the first node and is copied to two others; made-up users fetch files of it; its original is
retracted; each user who has it gets one mail, from the node that knows him. What happens is what a publisher's
calls through each node's index proxy, and lines in its web server's log, set going; nothing is handed to a daemon
by another way.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

import attrs

# Five nodes: the original, two copies, the home of most users, the home of one.
NODES: Final = 5
MASTER: Final = "CMIP6.CMIP.DEMO.DEMO-ESM.historical.r1i1p1f1.Amon.tas.gn"
OTHER: Final = "CMIP6.CMIP.DEMO.DEMO-ESM.historical.r1i1p1f1.Amon.pr.gn"
VERSION: Final = "20260101"
FILES: Final = ("185001-189912", "190001-194912", "195001-201412")
# A busy machine is given that long for each step.
STEP_DEADLINE_S: Final = 60.0
_HTTP_S: Final = 10.0


class StoryError(Exception):
    """Report which step of the story did not come true, in one line."""


@attrs.frozen
class User:
    """A made-up user: name, the OpenIDs' names, which node is his home, from which nodes he fetches, which dataset."""

    name: str
    openids: Sequence[str]
    home: int
    fetches_from: Sequence[int]
    master_id: str = MASTER

    @property
    def address(self) -> str:
        """His address, of a domain that is nobody's (RFC 2606)."""
        return f"{self.name}@users.example"

    @property
    def is_concerned(self) -> bool:
        """Whether he holds what is retracted."""
        return self.master_id == MASTER


# Numbers are those of the nodes: 0 has the original, 1 and 2 a copy, 3 and 4 know the users.
USERS: Final = (
    User("ada", ("ada",), 3, (1,)),
    User("bo", ("bo",), 3, (0, 2)),
    User("cy", ("cy", "cy.second"), 3, (0, 1)),
    User("di", ("di",), 4, (2,)),
    User("eve", ("eve",), 3, (0,), OTHER),
)


@attrs.frozen
class Place:
    """Where a node of the story is: its name, where its index proxy and its HTTP resource listen, its folder."""

    host: str
    tracking_port: int
    http_port: int
    folder: Path

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


def write_users(places: Sequence[Place]) -> None:
    """Write the files of users and empty logs of all nodes, before their daemons start."""
    for number, place in enumerate(places):
        rows = [
            f"{openid(place, name)},{user.address}\n"
            for user in USERS
            if user.home == number
            for name in user.openids
        ]
        place.users_file.touch(mode=0o600)
        place.users_file.write_text("".join(rows))
        place.access_log.touch()


class Story:
    """
    The course of the story; ``step`` takes it as far as it can go now.

    Args:
        places: of at least ``NODES`` nodes, whose daemons run.
        mailbox_url: of the mailbox page.
        mails: gives the addresses that got a mail, one for each mail.
        say: told a line for each thing that happens.
    """

    def __init__(
        self,
        places: Sequence[Place],
        mailbox_url: str,
        mails: Callable[[], Sequence[str]],
        say: Callable[[str], None],
    ) -> None:
        self.mailbox_url: Final = mailbox_url
        self.is_over = False
        self.retracted_to_mails_s: float | None = None
        self._places: Final = places
        self._mails: Final = mails
        self._say: Final = say
        self._course = self._play()
        self._waiting_for = ""
        self._deadline_s = 0.0

    def report(self) -> Mapping[str, Any]:
        """Return what came of it, for ``--json``."""
        addresses = self._mails()
        return {
            "is_over": self.is_over,
            "mails": len(addresses),
            "users": len(set(addresses)),
            "mailbox": self.mailbox_url,
            "retracted_to_mails_s": self.retracted_to_mails_s and round(self.retracted_to_mails_s, 3),
        }

    def step(self) -> None:
        """
        Go on until something has to be waited for.

        Raises:
            StoryError: what was waited for did not come, or a node said no.
        """
        if self.is_over:
            return
        try:
            waiting_for = next(self._course)
        except StopIteration:
            self.is_over = True
            return
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StoryError(f"the story stops: {error}") from None
        now_s = time.monotonic()
        if waiting_for != self._waiting_for:
            self._waiting_for, self._deadline_s = waiting_for, now_s + STEP_DEADLINE_S
        elif now_s > self._deadline_s:
            raise StoryError(f"the story stops: {waiting_for} did not come within {STEP_DEADLINE_S:.0f} s")

    def _play(self) -> Iterator[str]:
        original, *copies = self._places[:3]
        for master_id in (MASTER, OTHER):
            self._publish(original, master_id, is_replica=False)
        self._say(f"published at {original.host}: {MASTER}.v{VERSION}")
        for copy in copies:
            self._publish(copy, MASTER, is_replica=True)
        self._say(f"replicated at {copies[0].host} and {copies[1].host}")
        while not all(self._status(place).get("replicas") for place in self._places):
            yield "that every node knows of the copies"
        for user in USERS:
            self._fetch(user)
        self._say(f"downloaded by {len(USERS)} users")
        began_s = time.monotonic()
        self._call(
            original,
            "retract",
            f"id={MASTER}.v{VERSION}%7C{original.host}",
            "application/x-www-form-urlencoded",
        )
        self._say(f"retracted at {original.host}")
        while not all(self._status(place).get("status") == "retracted" for place in self._places):
            yield "that every node knows of the retraction"
        self._say(f"every node knows it after {time.monotonic() - began_s:.1f} s")
        wanted = sum(user.is_concerned for user in USERS)
        while len(self._mails()) < wanted:
            yield "that the mails arrive"
        self.retracted_to_mails_s = time.monotonic() - began_s
        self._say(
            f"{wanted} users have one mail each, {self.retracted_to_mails_s:.1f} s after: {self.mailbox_url}"
        )

    def _publish(self, place: Place, master_id: str, *, is_replica: bool) -> None:
        """Publish as a publisher does: each file, then the dataset."""
        instance_id = f"{master_id}.v{VERSION}"
        record = f"{instance_id}|{place.host}"
        common = {
            "version": VERSION,
            "data_node": place.host,
            "index_node": place.host,
            "replica": str(is_replica),
            "latest": "True",
            "project": "CMIP6",
        }
        for name in _names(master_id):
            url = f"https://{place.host}{_path(master_id, name)}"
            fields = {
                "id": f"{instance_id}.{name}|{place.host}",
                "type": "File",
                "dataset_id": record,
                "title": name,
                "instance_id": f"{instance_id}.{name}",
                "master_id": f"{master_id}.{name}",
                "url": f"{url}|application/netcdf|HTTPServer",
                "checksum": "ab" * 32,
                "checksum_type": "SHA256",
                **common,
            }
            self._call(place, "publish", _document(fields))
        fields = {
            "id": record,
            "type": "Dataset",
            "title": master_id,
            "instance_id": instance_id,
            "master_id": master_id,
            "number_of_files": str(len(FILES)),
            **common,
        }
        self._call(place, "publish", _document(fields))

    def _fetch(self, user: User) -> None:
        for place in (self._places[number] for number in user.fetches_from):
            stamp = datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S %z")
            lines = [
                f"127.0.0.1 - {openid(self._places[user.home], name)} [{stamp}] "
                f'"GET {_path(user.master_id, file)} HTTP/1.1" 200 1048576 "-" "Wget/1.21" "-" [0.4]\n'
                for name in user.openids
                for file in _names(user.master_id)
            ]
            with place.access_log.open("a") as log:
                log.write("".join(lines))

    def _status(self, place: Place) -> Mapping[str, Any]:
        answer = self._ask(
            place.http_port,
            "POST",
            "/api/v1/datasets/check",
            json.dumps([f"{MASTER}.v{VERSION}"]),
            "application/json",
        )
        found: Mapping[str, Any] = json.loads(answer)["datasets"][0]
        return found

    def _call(self, place: Place, operation: str, body: str, content_type: str = "") -> None:
        self._ask(place.tracking_port, "POST", f"/esg-search/ws/{operation}", body, content_type)

    def _ask(self, port: int, method: str, path: str, body: str = "", content_type: str = "") -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_HTTP_S)
        try:
            headers = {"Content-Type": content_type} if content_type else {}
            connection.request(method, path, body.encode(), headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise ValueError(f"{method} {path} at port {port}: {answer.status} {content[:200]!r}")
        return content


def _names(master_id: str) -> list[str]:
    facets = master_id.split(".")
    return [
        f"{facets[7]}_{facets[6]}_{facets[3]}_{facets[4]}_{facets[5]}_{facets[8]}_{span}.nc" for span in FILES
    ]


def _path(master_id: str, name: str) -> str:
    return f"/thredds/fileServer/css03_data/{master_id.replace('.', '/')}/v{VERSION}/{name}"


def _document(fields: Mapping[str, str]) -> str:
    lines = "".join(f'  <field name="{name}">{escape(value)}</field>\n' for name, value in fields.items())
    return f"<doc>\n{lines}</doc>"
