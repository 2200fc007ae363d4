"""
The file ``<state>/control.sock``: made private, replaced when stale, removed at the end.

Only the file lives here; what is said over it is ``control_protocol``'s.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort

from esgf_gossip.web.control_protocol import Commands, ControlFactory

MODE: Final = 0o600
# sun_path of Linux, less the final zero.
PATH_BYTES: Final = 107
CONNECT_S: Final = 1.0


class ControlSocketError(Exception):
    """Say in one line why there can be no control socket. Nothing was changed."""


def peer_uid(asker: socket.socket) -> int:
    """Return the user whose process is at the other end of a UNIX socket. Source: unix(7), SO_PEERCRED."""
    credentials = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def _is_own_or_root(transport: Any) -> bool:
    # The mode of the socket says so already; this holds where somebody has opened the folder and the file.
    return peer_uid(transport.getHandle()) in (0, os.geteuid())


class ControlSocket:
    """
    The control socket of one daemon, from ``start`` to ``stop``.

    Two daemons that start at the same time are told apart by a lock that the
    kernel drops when a process ends, however it ends.

    Args:
        path: of the socket, in the state folder of the node; the lock lies beside it.
        commands: what the socket asks of the daemon.
        reactor: listens (IReactorUNIX) and keeps time.
    """

    def __init__(self, path: Path, commands: Commands, reactor: Any) -> None:
        self.path: Final = path
        self._lock_path: Final = path.with_suffix(".lock")
        self._reactor = reactor
        self._factory = ControlFactory(commands, reactor, _is_own_or_root)
        self._port: IListeningPort | None = None
        self._lock: int | None = None
        self._folder: int | None = None

    @property
    def _address(self) -> str:
        """A path that fits into a socket address: the long name of a folder is replaced by that of its descriptor."""
        if len(os.fsencode(self.path)) <= PATH_BYTES:
            return str(self.path)
        return f"/proc/self/fd/{self._folder}/{self.path.name}"

    def start(self) -> None:
        """
        Listen; a socket left by a crashed daemon is replaced.

        Raises:
            ControlSocketError: another daemon is running, or something else is in the way.
        """
        self._lock = self._locked()
        try:
            self._folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._clear_the_way()
            # bind() makes the file: under this umask it is 0600 from its first instant.
            umask = os.umask(0o177)
            try:
                self._port = self._reactor.listenUNIX(self._address, self._factory, mode=MODE)
            except CannotListenError as error:
                raise ControlSocketError(f"{self.path}: {error.socketError}") from None
            finally:
                os.umask(umask)
        except BaseException:
            self._unlock()
            raise

    def stop(self) -> Deferred[None]:
        """Listen no more, close the clients, remove the file; a second call does nothing."""
        port, self._port = self._port, None
        if port is None:
            return maybeDeferred(lambda: None)
        self._factory.disconnect_all()
        if not os.path.lexists(self.path):
            # Twisted removes the file itself and would never finish where somebody has done so before.
            with contextlib.suppress(OSError):
                self.path.touch(MODE)
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
        for descriptor in (self._lock, self._folder):
            if descriptor is not None:
                os.close(descriptor)
        self._lock = self._folder = None

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
                probe.connect(self._address)
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except OSError:
                return True
        return True

    def _already_running(self) -> ControlSocketError:
        return ControlSocketError(f"another daemon is running with the state folder {self.path.parent}")
