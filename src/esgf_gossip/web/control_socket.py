"""
The file ``<state>/control.sock``: made private, replaced when stale, removed at the end.

Only the file lives here; what is said over it is ``control``'s.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort

from esgf_gossip.web.control import Commands, ControlFactory

NAME: Final = "control.sock"
LOCK_NAME: Final = "control.lock"
MODE: Final = 0o600
# sun_path of Linux, less the final zero.
PATH_BYTES: Final = 107
CONNECT_S: Final = 1.0


class ControlSocketError(Exception):
    """Say in one line why there can be no control socket. Nothing was changed."""


class ControlSocket:
    """
    The control socket of one daemon, from ``start`` to ``stop``.

    Two daemons that start at the same time are told apart by a lock that the
    kernel drops when a process ends, however it ends.

    Args:
        reactor: listens (IReactorUNIX) and keeps time.
        state: the state folder of the node.
        commands: what the socket asks of the daemon.
    """

    def __init__(self, reactor: Any, state: Path, commands: Commands) -> None:
        self.path: Final = state / NAME
        self._lock_path: Final = state / LOCK_NAME
        self._reactor = reactor
        self._factory = ControlFactory(commands, reactor)
        self._port: IListeningPort | None = None
        self._lock: int | None = None
        self._inode: tuple[int, int] | None = None

    def start(self) -> None:
        """
        Listen; a socket left by a crashed daemon is replaced.

        Raises:
            ControlSocketError: another daemon is running, or something else is in the way.
        """
        if len(os.fsencode(self.path)) > PATH_BYTES:
            raise ControlSocketError(
                f"{self.path}: longer than {PATH_BYTES} bytes; choose a shorter node.state"
            )
        self._lock = self._locked()
        try:
            self._clear_the_way()
            # bind() makes the file: under this umask it is 0600 from its first instant.
            umask = os.umask(0o177)
            try:
                self._port = self._reactor.listenUNIX(str(self.path), self._factory, mode=MODE)
            finally:
                os.umask(umask)
            self._inode = _inode(self.path)
        except BaseException:
            self._unlock()
            raise

    def stop(self) -> Deferred[None]:
        """Listen no more, close the clients, remove the file unless it is another daemon's by now."""
        port, self._port = self._port, None
        if port is None:
            return maybeDeferred(lambda: None)
        self._factory.disconnect_all()
        if self._inode is not None and _inode(self.path) == self._inode:
            self.path.unlink(missing_ok=True)
        stopped: Deferred[None] = maybeDeferred(port.stopListening)
        stopped.addBoth(self._stopped)
        return stopped

    def _stopped(self, outcome: Any) -> Any:
        self._unlock()
        return outcome

    def _locked(self) -> int:
        try:
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        except OSError as error:
            raise ControlSocketError(f"{self._lock_path}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise self._already_running() from None
        return lock

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _clear_the_way(self) -> None:
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise ControlSocketError(f"{self.path} is there and is no socket; move it away")
        if self._is_answered():
            raise self._already_running()
        self.path.unlink(missing_ok=True)

    def _is_answered(self) -> bool:
        """Tell whether a process listens; only a refusal is proof that none does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_S)
            try:
                probe.connect(str(self.path))
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except OSError:
                return True
        return True

    def _already_running(self) -> ControlSocketError:
        return ControlSocketError(f"another daemon is running with the state folder {self.path.parent}")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
