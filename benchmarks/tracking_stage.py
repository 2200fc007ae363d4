"""A federation of real daemons that track, for the tracking campaign: its sites, its users, and what lies in the mailbox."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import esgf_gossip.demo.processes as demo
from esgf_gossip.cli.failures import CommandError
from esgf_gossip.demo import site_calls
from esgf_gossip.demo.site_calls import Place, openid
from helpers.daemons import all_equal, eventually

NODES = 5
# Numbers of nodes: who has the original, two with copies, two homes.
ORIGINAL, COPIES, HOME, SMALL_HOME = 0, (1, 2), 3, 4
MASTER = "CMIP6.CMIP.DEMO.DEMO-ESM.historical.r1i1p1f1.Amon.{}.gn"
VERSION = "20260101"
# A machine that is busy with other things must not make a right program fail.
DEADLINE_S = 300.0
# So long nothing more may come after the last mail that was waited for.
QUIET_S = 15.0
PLAIN_COMMAND = demo.daemon_command

Command = Callable[[Path], list[str]]


class Stage:
    """
    The federation; a context manager that leaves no process behind.

    Args:
        folder: of everything.
        count: nodes that are laid out; ``begin`` says which are started.
        commands: by number what starts the daemon in place of the usual command line.
        settings: lines of ``[tracking]`` for all nodes, as TOML values by key.
    """

    def __init__(
        self,
        folder: Path,
        count: int = NODES,
        *,
        commands: Mapping[int, Command] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.federation = demo.DemoFederation(folder / "demo", count, is_tracking=True)
        self.hosts = self.federation.hosts
        self._commands = {self.hosts[number]: one for number, one in (commands or {}).items()}
        self._settings = dict(settings or {})
        self._users: dict[str, int] = {}
        self.places: list[Place] = []
        # By number what calls to a node are made in.
        self.around: dict[int, Callable[[], AbstractContextManager[None]]] = {}

    def __enter__(self) -> Stage:
        demo.daemon_command = self._command
        self.federation.prepare()
        for host in self.hosts:
            node = self.federation.node(host)
            assert node.tracking is not None
            place = Place(host, node.tracking.own, node.http_port, node.folder)
            place.users_file.touch(mode=0o600)
            place.access_log.touch()
            self.places.append(place)
        for number in range(len(self.hosts)):
            self.configure(number, **self._settings)
        return self

    def __exit__(self, *_: object) -> None:
        demo.daemon_command = PLAIN_COMMAND
        self.federation.close()

    def _command(self, path: Path) -> list[str]:
        return self._commands.get(path.parent.name, PLAIN_COMMAND)(path)

    # ----------------------------------------------------------------- nodes

    def configure(self, number: int, **settings: str) -> None:
        """Set keys of a node's ``[tracking]``, its last table."""
        path = self.federation.config_path(self.hosts[number])
        text = path.read_text()
        head, table, tracking = text.rpartition("[tracking]\n")
        for key, value in settings.items():
            tracking = re.sub(rf"(?m)^{key} = .*\n", "", tracking) + f"{key} = {value}\n"
        path.write_text(head + table + tracking)

    def begin(self, numbers: Sequence[int] = range(NODES)) -> float:
        """Start services and daemons; return the seconds until all hold one set and take calls."""
        begun_s = time.monotonic()
        self.federation.start_services()
        for number in numbers:
            self.federation.start(self.hosts[number])
        self.converge(numbers)
        return time.monotonic() - begun_s

    def converge(self, numbers: Sequence[int] = range(NODES)) -> None:
        """Wait until nodes hold one set over them, and their proxies answer."""
        hosts = [self.hosts[number] for number in numbers]
        eventually(
            lambda: all_equal(self.federation, hosts, len(hosts)), f"{len(hosts)} nodes converge", DEADLINE_S
        )

    def ask(self, number: int, command: str, **fields: Any) -> Any:
        """Ask a node; None while it does not answer."""
        try:
            return self.federation.control(self.hosts[number]).ask(command, **fields)
        except (CommandError, OSError):
            return None

    def cli(self, number: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line of a node."""
        config = str(self.federation.config_path(self.hosts[number]))
        command = [sys.executable, "-P", "-m", "esgf_gossip.cli.main", *arguments, "--config", config]
        return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    def restart(self, number: int) -> None:
        """Kill a daemon and start it again at once."""
        self.federation.kill(self.hosts[number])
        self.federation.start(self.hosts[number])

    # ----------------------------------------------------------------- datasets

    def publish(
        self, number: int, master_id: str, version: str = VERSION, *, is_replica: bool = False
    ) -> None:
        """Publish at a node; again as long as it does not answer."""
        self._insist(
            number,
            lambda place: site_calls.publish(place, master_id, version, is_replica=is_replica),
            f"{self.hosts[number]} takes a publication",
        )

    def retract(self, number: int, master_id: str, version: str = VERSION) -> None:
        """Retract at a node; again as long as it does not answer."""
        self._insist(
            number,
            lambda place: site_calls.retract(place, master_id, version),
            f"{self.hosts[number]} takes a retraction",
        )

    def _insist(self, number: int, work: Callable[[Place], None], what: str) -> None:
        def is_done() -> bool:
            try:
                with self.around.get(number, nullcontext)():
                    work(self.places[number])
            except (OSError, http.client.HTTPException, ValueError):
                return False
            return True

        eventually(is_done, what, DEADLINE_S)

    def status(self, number: int, master_id: str, version: str = VERSION) -> str:
        """Return how a node says that a version stands; empty while it does not answer."""
        return str((self.ask(number, "dataset", dataset=f"{master_id}.v{version}") or {}).get("status", ""))

    def replicas(self, number: int, master_id: str, version: str = VERSION) -> int:
        """Return how many copies a node knows beside the original."""
        return len((self.ask(number, "dataset", dataset=f"{master_id}.v{version}") or {}).get("replicas", ()))

    def lay_out_dataset(self, master_id: str, numbers: Sequence[int] = range(NODES)) -> None:
        """Publish an original and two copies, and wait until all know of them."""
        self.publish(ORIGINAL, master_id)
        for number in COPIES:
            self.publish(number, master_id, is_replica=True)
        eventually(
            lambda: all(self.replicas(number, master_id) == len(COPIES) for number in numbers),
            "all know of the copies",
            DEADLINE_S,
        )

    def wait_for_status(
        self, wanted: str, master_id: str, version: str = VERSION, numbers: Sequence[int] = range(NODES)
    ) -> float:
        """Wait until nodes say that a version stands so; return the seconds."""
        begun_s = time.monotonic()
        eventually(
            lambda: all(self.status(number, master_id, version) == wanted for number in numbers),
            f"all say {wanted}",
            DEADLINE_S,
        )
        return time.monotonic() - begun_s

    # ----------------------------------------------------------------- users

    def add_user(self, name: str, home: int, known_at: Iterable[int] = ()) -> None:
        """Make up a user, whom his home knows, and other nodes too."""
        self._users[name] = home
        for number in (home, *known_at):
            with self.places[number].users_file.open("a") as file:
                file.write(f"{self.openid(name)},{address(name)}\n")

    def openid(self, name: str) -> str:
        """Return the OpenID of a user."""
        return openid(self.places[self._users[name]], name)

    def fetch(self, number: int, names: Sequence[str], master_id: str, version: str = VERSION) -> None:
        """Let users download a version."""
        site_calls.fetch(self.places[number], [self.openid(name) for name in names], master_id, version)

    # ----------------------------------------------------------------- mails

    def mails(self) -> list[Any]:
        """Return all mails in the order they came."""
        assert self.federation.services is not None
        return [
            message_from_bytes(path.read_bytes(), policy=policy.default)
            for path in sorted(self.federation.services.folder.glob("*.eml"))
        ]

    def letters(self) -> list[tuple[str, str, str]]:
        """Return all mails as their readers see them: address, subject, text."""
        return [
            (str(one["to"]), str(one["subject"]), one.get_body(("plain",)).get_content())
            for one in self.mails()
        ]

    def addresses(self) -> Counter[str]:
        """Return how many mails each address got."""
        return Counter(str(one["to"]) for one in self.mails())

    def wait_for_mails(self, count: int, deadline_s: float = DEADLINE_S) -> float:
        """Wait for so many mails; return the seconds."""
        begun_s = time.monotonic()
        eventually(lambda: sum(self.addresses().values()) >= count, f"{count} mails arrive", deadline_s)
        return time.monotonic() - begun_s

    def wait_until(self, check: Callable[[], Any], what: str) -> None:
        """Wait, with the patience of all of this, until something holds."""
        eventually(check, what, DEADLINE_S)

    def keep_logs(self, folder: Path | None, name: str) -> None:
        """Copy what daemons wrote to where somebody can look at it afterwards."""
        if folder is not None:
            shutil.copytree(self.folder / "demo", folder / name, dirs_exist_ok=True, ignore=_sockets)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]


def address(name: str) -> str:
    """Return the mail address of a user, of a domain that is nobody's."""
    return f"{name}@users.example"


def once_each(names: Iterable[str]) -> Counter[str]:
    """Return the mails of users who have one each."""
    return Counter(address(name) for name in names)


def stay_quiet(seconds: float = QUIET_S) -> None:
    """Give mails that must not come time to come."""
    time.sleep(seconds)
