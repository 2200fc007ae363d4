"""
The client of the control socket: one JSON object a line, both ways.

Only the conversation lives here, without Twisted. What is asked: docs/operations.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from esgf_gossip.cli.failures import CommandError, ExitCode

# The table of 5,000 nodes is some 20 MB of JSON; a daemon gone mad must not fill our memory.
LINE_BYTES: Final = 256 * 1024 * 1024
READ_BYTES: Final = 256 * 1024
# sun_path holds 108 bytes with the zero at its end.
SOCKET_PATH_BYTES: Final = 107
# A daemon that is busy signing or writing answers within a second; one that stands still never.
TIMEOUT_S: Final = 10.0


class NoDaemonError(CommandError):
    """Report that no daemon listens on a control socket, or none any more."""

    def __init__(self, path: Path, *, has_ended: bool = False) -> None:
        super().__init__(
            f"the daemon has ended on {path}" if has_ended else f"no daemon is running on {path}",
            "",
            "its log says why"
            if has_ended
            else "start it with: esgf-gossip run --config FILE, or give the --config of the node that runs",
            ExitCode.NO_DAEMON,
        )


class Conversation:
    """
    One connection to a daemon. A context manager; ``fileno`` lets it wait in a selector.

    Raises (every method):
        NoDaemonError: nobody listens, or the daemon ended in mid-conversation.
        CommandError: no answer in time, an answer that is none, no permission.
    """

    def __init__(self, path: Path, timeout_s: float | None = TIMEOUT_S) -> None:
        """Connect; ``timeout_s`` is the longest silence we wait through, None: for ever."""
        self._path = path
        self._unread = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            _connect(self._socket, path)
        except BaseException as error:
            self._socket.close()
            if isinstance(error, OSError):
                raise _explained(error, path) from None
            raise

    def __enter__(self) -> Conversation:
        """Give the open conversation."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; twice does no harm."""
        self._socket.close()

    def fileno(self) -> int:
        """Give the descriptor, for a selector."""
        return self._socket.fileno()

    def wait_for_ever(self) -> None:
        """Take silence for what it is from now on: events may be days apart."""
        self._socket.settimeout(None)

    def ask(self, command: str, **arguments: Any) -> Any:
        """
        Send a command and return the ``data`` of its answer.

        Raises:
            CommandError: also where the daemon says no: REFUSED, or NOT_FOUND, in its own words.
        """
        request = json.dumps({"command": command, **arguments}).encode() + b"\n"
        try:
            self._socket.sendall(request)
        except OSError as error:
            raise _explained(error, self._path) from None
        answer = self.next_line()
        if answer.get("ok") is True:
            return answer.get("data")
        reason = str(answer.get("error") or "the daemon refused without a reason")
        code = ExitCode.NOT_FOUND if answer.get("missing") is True else ExitCode.REFUSED
        raise CommandError(reason, "", "", code)

    def next_line(self) -> dict[str, Any]:
        """Wait for the next object."""
        while (line := self._take_line()) is None:
            self._read()
        return self._decoded(line)

    def read_more(self) -> None:
        """Read once, what a selector said is there."""
        self._read()

    def lines_at_hand(self) -> Iterator[dict[str, Any]]:
        """Give each object that was read completely; does not wait."""
        while (line := self._take_line()) is not None:
            yield self._decoded(line)

    def wait_for_exit(self, timeout_s: float) -> None:
        """
        Wait until the process at the other end has ended, which it told it will.

        Raises:
            CommandError: it lives on after ``timeout_s``.
        """
        process_id = self.process_id
        if process_id in (0, os.getpid()):
            # 0: it lives in another PID namespace, where we cannot see it end.
            return
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(process_id)
            try:
                ended, _, _ = select.select([process], [], [], timeout_s)
            finally:
                os.close(process)
            if not ended:
                raise CommandError(
                    f"process {process_id} has not ended after {timeout_s:.0f} s",
                    str(self._path),
                    "read its log; kill it if it hangs",
                    ExitCode.INTERNAL,
                )

    @property
    def process_id(self) -> int:
        """The process at the other end; 0 where it lives in another PID namespace."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        process_id: int = struct.unpack("3i", credentials)[0]
        return process_id

    def _read(self) -> None:
        try:
            part = self._socket.recv(READ_BYTES)
        except OSError as error:
            raise _explained(error, self._path) from None
        if not part:
            raise NoDaemonError(self._path, has_ended=True)
        self._unread += part
        if len(self._unread) > LINE_BYTES:
            raise CommandError(
                f"the daemon sent a line of more than {LINE_BYTES} bytes",
                str(self._path),
                "see that an esgf-gossip of this version runs there",
                ExitCode.INTERNAL,
            )

    def _take_line(self) -> bytes | None:
        end = self._unread.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return line

    def _decoded(self, line: bytes) -> dict[str, Any]:
        try:
            decoded = json.loads(line)
        except ValueError:
            decoded = None
        if not isinstance(decoded, dict):
            raise CommandError(
                "what answers is not an esgf-gossip daemon",
                str(self._path),
                "see which program listens there",
                ExitCode.INTERNAL,
            )
        return decoded


class ControlClient:
    """Asks the daemon behind one control socket, a connection per question."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        """Keep the path; nothing is connected yet."""
        self.path: Final = path
        self._timeout_s = timeout_s

    def ask(self, command: str, **arguments: Any) -> Any:
        """Ask one question; see ``Conversation.ask``."""
        with Conversation(self.path, self._timeout_s) as conversation:
            return conversation.ask(command, **arguments)

    def is_answering(self) -> bool:
        """Tell whether a daemon listens there."""
        try:
            Conversation(self.path, self._timeout_s).close()
        except CommandError:
            return False
        return True

    def watch(self) -> tuple[dict[str, Any], Conversation]:
        """Subscribe: returns the picture of now and the conversation in which events follow, without timeout."""
        conversation = Conversation(self.path, self._timeout_s)
        try:
            picture = conversation.ask("watch")
        except BaseException:
            conversation.close()
            raise
        conversation.wait_for_ever()
        return picture, conversation


def _connect(ours: socket.socket, path: Path) -> None:
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        ours.connect(str(path))
        return
    # The short name of the same folder; it is looked up during connect() only.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        ours.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _explained(error: OSError, path: Path) -> CommandError:
    if isinstance(error, TimeoutError):
        return CommandError(
            "the daemon did not answer in time",
            str(path),
            "see its log; is it busy or stopped?",
            ExitCode.INTERNAL,
        )
    if isinstance(error, PermissionError):
        return CommandError(
            "the control socket may not be opened",
            str(path),
            "run as the user of the daemon, or as root",
            ExitCode.FILES,
        )
    return NoDaemonError(path)
