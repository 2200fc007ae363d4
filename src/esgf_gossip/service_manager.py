"""
The service manager that started this process, systemd above all: what it is told, and the ports it opened for us.

It is told by datagrams to the socket named by NOTIFY_SOCKET (sd_notify(3)), for which
no library is needed; the ports are found by Twisted (sd_listen_fds(3)). Where nobody
looks after the process every call does nothing. No reactor is imported at module level (docs/adr/0002).
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Final

from twisted.internet.endpoints import serverFromString
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

# The name of our descriptor in esgf-gossip.socket: FileDescriptorName=http.
HTTP: Final = "http"
DESCRIPTORS_MOST: Final = 16
# sun_path of Linux, less the final zero of a path.
ADDRESS_BYTES: Final = 107
STATUS_CHARACTERS: Final = 200
# How often the status line is made anew; the watchdog may ask for more.
STATUS_EVERY_S: Final = 30.0
# The manager has not read its datagrams: it is asked again, the reactor never waits for it.
RETRY_S: Final = 1.0
RETRIES_MOST: Final = 60
WAITING_MOST: Final = 64
# A day: beyond it nothing is watched.
WATCHDOG_US_MOST: Final = 24 * 60 * 60 * 1_000_000
_VARIABLES: Final = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"),
)


class ServiceManagerError(Exception):
    """Say in one line what the service manager handed over that cannot be used, and what to correct."""


class ServiceManager:
    """
    What started this process, if it wants to be told.

    Args:
        environment: read and cleared of what was meant for this process alone, so that
            no program we start speaks in our name.
        reactor: keeps time (IReactorTime) and takes over ports (IReactorSocket).
    """

    log = Logger()

    def __init__(self, environment: MutableMapping[str, str], reactor: Any) -> None:
        self._reactor = reactor
        given = {name: environment.pop(name) for name in _VARIABLES if name in environment}
        self._address: Final = _address(given.get("NOTIFY_SOCKET", ""))
        self._watchdog_s: Final = _watchdog_s(given)
        self._descriptors: Final = _descriptors(given.get("LISTEN_FDNAMES"))
        self._waiting: deque[bytes] = deque(maxlen=WAITING_MOST)
        self._refused = 0
        self._told: str | None = None
        self._beat = LoopingCall(self._tick)
        self._beat.clock = reactor
        self._status: Callable[[], str] = str
        if given.get("NOTIFY_SOCKET") and self._address is None:
            self.log.warn("the service manager is not told anything: its NOTIFY_SOCKET is no socket address")

    # ----------------------------------------------------------------- ports

    def listen(self, name: str, factory: Any) -> list[Any]:
        """
        Serve on the ports that were opened under a name; none where there are none.

        Raises:
            ServiceManagerError: one of them is no listening TCP port; nothing is served.
        """
        numbers = self._descriptors.pop(name, [])
        try:
            families = [_listening_family(number) for number in numbers]
            return [
                self._reactor.adoptStreamPort(number, family, factory)
                for number, family in zip(numbers, families, strict=True)
            ]
        finally:
            # The reactor works with a duplicate.
            for number in numbers:
                os.close(number)

    def close_unused(self) -> None:
        """Close the ports that nobody here serves, so that their clients are refused instead of kept waiting."""
        while self._descriptors:
            name, numbers = self._descriptors.popitem()
            self.log.warn(
                "the service manager opened a port named {name}, which nothing here serves; it is closed",
                name=name[:STATUS_CHARACTERS],
            )
            for number in numbers:
                with contextlib.suppress(OSError):
                    os.close(number)

    # ----------------------------------------------------------------- states

    def ready(self, status: Callable[[], str]) -> None:
        """Say that the daemon works, and from now on what ``status`` returns, with a sign of life as often as is asked."""
        if self._address is None:
            return
        self._status = status
        self._say(READY="1", STATUS=self._status_line())
        every_s = STATUS_EVERY_S if self._watchdog_s is None else min(self._watchdog_s / 2, STATUS_EVERY_S)
        if not self._beat.running:
            self._beat.start(every_s)

    @contextlib.contextmanager
    def reload(self) -> Iterator[None]:
        """Say that a reload has begun and, however it ends, that it has ended."""
        self._say(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))
        try:
            yield
        finally:
            self._say(READY="1")

    def stopping(self) -> None:
        """Say that the daemon ends; signs of life go on until the process has gone."""
        self._say(STOPPING="1", STATUS="stopping")
        self._status = lambda: "stopping"

    def _tick(self) -> None:
        status = self._status_line()
        news = {} if status == self._told else {"STATUS": status}
        self._say(**news) if self._watchdog_s is None else self._say(**news, WATCHDOG="1")

    def _status_line(self) -> str:
        return _one_line(self._status())

    # ----------------------------------------------------------------- datagrams

    def _say(self, **news: str) -> None:
        if self._address is None or not news:
            return
        if "STATUS" in news:
            self._told = news["STATUS"]
        self._waiting.append("\n".join(f"{name}={value}" for name, value in news.items()).encode())
        if len(self._waiting) == 1:
            self._send()

    def _send(self) -> None:
        """Send what waits, in order."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                while self._waiting:
                    sender.sendto(self._waiting[0], self._address or "")
                    self._waiting.popleft()
        except BlockingIOError:
            self._refused += 1
            if self._refused <= RETRIES_MOST:
                self._reactor.callLater(RETRY_S, self._send)
                return
            reason = "it does not read"
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            reason = ""
        self._refused = 0
        self._waiting.clear()
        if reason:
            self.log.warn("the service manager could not be told: {reason}", reason=reason)


def _one_line(text: str) -> str:
    shown = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(shown.split())[:STATUS_CHARACTERS]


def _address(named: str) -> str | None:
    """Return the address of a socket: a path, or an abstract name, which systemd writes with @ in front."""
    if not named.startswith(("/", "@")) or not 1 < len(os.fsencode(named)) <= ADDRESS_BYTES:
        return None
    return "\0" + named[1:] if named.startswith("@") else named


def _number(text: str | None, most: int) -> int:
    """Return a whole number from 1 to ``most``, 0 for everything else."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > len(str(most)):
        return 0
    return int(text) if int(text) <= most else 0


def _is_for_us(process_id: str | None) -> bool:
    return process_id == str(os.getpid())


def _watchdog_s(given: dict[str, str]) -> float | None:
    if "WATCHDOG_PID" in given and not _is_for_us(given["WATCHDOG_PID"]):
        return None
    return _number(given.get("WATCHDOG_USEC"), WATCHDOG_US_MOST) / 1_000_000 or None


def _descriptors(names: str | None) -> dict[str, list[int]]:
    """
    Return the descriptors handed over, by name; programs that we start do not get them.

    Twisted has counted them when its endpoints were imported, and knows whether they are
    for this process; of several with one name it would tell the last alone.
    """
    found: dict[str, list[int]] = {}
    if names is None:
        return found
    for place, name in enumerate(names.split(":")[:DESCRIPTORS_MOST]):
        try:
            handed: Any = serverFromString(None, f"systemd:domain=INET:index={place}")
        except IndexError:
            break
        with contextlib.suppress(OSError):
            os.set_inheritable(handed.fileno, False)
        found.setdefault(name, []).append(handed.fileno)
    return found


def _listening_family(number: int) -> int:
    """
    Return the address family of a descriptor on which TCP connections can be accepted.

    Raises:
        ServiceManagerError: it is something else.
    """
    try:
        with socket.socket(fileno=os.dup(number)) as handed:
            is_good = (
                handed.family in (socket.AF_INET, socket.AF_INET6)
                and handed.type == socket.SOCK_STREAM
                and handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            )
            # As systemd leaves it, a connection that has gone meanwhile would stop everything.
            os.set_blocking(number, False)
            family = handed.family
    except OSError:
        is_good = False
    if not is_good:
        raise ServiceManagerError(
            f"descriptor {number} from the service manager is no listening TCP port; "
            "correct ListenStream= in esgf-gossip.socket"
        )
    return family
