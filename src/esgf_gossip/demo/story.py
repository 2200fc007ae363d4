"""
The story of ``demo --tracking``: a dataset published, replicated, downloaded, retracted, and who is told.

A dataset appears at the first node and is copied to two others; made-up users fetch files of it; its original is
retracted; each user who has it gets one mail, from the node that knows him. All of it is set going by what happens at
the sites (``demo.site_calls``).
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from esgf_gossip.demo.site_calls import Place, fetch, openid, publish, retract, status

# Five nodes: the original, two copies, the home of most users, the home of one.
NODES: Final = 5
MASTER: Final = "CMIP6.CMIP.DEMO.DEMO-ESM.historical.r1i1p1f1.Amon.tas.gn"
OTHER: Final = "CMIP6.CMIP.DEMO.DEMO-ESM.historical.r1i1p1f1.Amon.pr.gn"
VERSION: Final = "20260101"
# A busy machine is given that long for each step.
STEP_DEADLINE_S: Final = 60.0


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
            publish(original, master_id, VERSION, is_replica=False)
        self._say(f"published at {original.host}: {MASTER}.v{VERSION}")
        for copy in copies:
            publish(copy, MASTER, VERSION, is_replica=True)
        self._say(f"replicated at {copies[0].host} and {copies[1].host}")
        while not all(status(place, MASTER, VERSION).get("replicas") for place in self._places):
            yield "that every node knows of the copies"
        for user in USERS:
            openids = [openid(self._places[user.home], name) for name in user.openids]
            for number in user.fetches_from:
                fetch(self._places[number], openids, user.master_id, VERSION)
        self._say(f"downloaded by {len(USERS)} users")
        began_s = time.monotonic()
        retract(original, MASTER, VERSION)
        self._say(f"retracted at {original.host}")
        while not all(status(place, MASTER, VERSION).get("status") == "retracted" for place in self._places):
            yield "that every node knows of the retraction"
        self._say(f"every node knows it after {time.monotonic() - began_s:.1f} s")
        wanted = sum(user.is_concerned for user in USERS)
        while len(self._mails()) < wanted:
            yield "that the mails arrive"
        self.retracted_to_mails_s = time.monotonic() - began_s
        self._say(
            f"{wanted} users have one mail each, {self.retracted_to_mails_s:.1f} s after: {self.mailbox_url}"
        )
