"""
One run of an administrator's program: without a shell, for a limited time, with nothing but a short environment.

What it prints goes nowhere: it may print what it was told of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

HOOK_S: Final = 60.0
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


class HookRun(ProcessProtocol):
    """One run of a program, ended by the clock if need be; ``ended`` hears how: "" for well."""

    def __init__(self, reactor: Any, ended: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._ended = ended
        self._deadline: Any = None
        self._is_late = False

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> str:
        """Start the program; return why it cannot be started, else an empty text: then ``ended`` will be called."""
        program = command[0]
        if not os.access(program, os.X_OK):
            return f"{program} is no program that this user may run"
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._reactor.spawnProcess(
                self,
                program,
                list(command),
                {"PATH": _PATH, **environment},
                str(folder),
                childFDs={0: nowhere, 1: nowhere, 2: nowhere},
            )
        except OSError as error:
            return f"{program} cannot be started: {error.strerror}"
        finally:
            os.close(nowhere)
        return ""

    def connectionMade(self) -> None:
        """Begin to count."""
        self._deadline = self._reactor.callLater(HOOK_S, self._late)

    def _late(self) -> None:
        self._is_late = True
        self.kill()

    def kill(self) -> None:
        """End it."""
        if self.transport is not None and self.transport.pid is not None:
            self.transport.signalProcess("KILL")

    def processEnded(self, reason: Failure) -> None:
        """Tell how it ended: "" for well."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if self._is_late:
            self._ended(f"not done within {HOOK_S:.0f} s")
        elif reason.check(ProcessDone):
            self._ended("")
        else:
            code = getattr(reason.value, "exitCode", None)
            self._ended(f"exit code {code}" if code is not None else "ended by a signal")
