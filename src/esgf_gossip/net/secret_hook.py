"""
The program an administrator has run when a secret has arrived: off the reactor, without a shell, once at a time.

It gets name, version and path in its environment, never the secret itself; what it prints goes nowhere, since it
may print the secret. Source: docs/trust.md, "Secrets".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.secret_store import SecretStore

HOOK_S: Final = 60.0
# After a failure it is tried again so often: at least once each version, whatever happens to the daemon.
AGAIN_S: Final = 300.0
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


class SecretHook:
    """Runs the hook for every secret it has not been told of, one after the other; one that fails holds up no other."""

    log = Logger()

    def __init__(self, store: SecretStore, command: Sequence[str], reactor: Any) -> None:
        self._store = store
        self._command: Sequence[str] = command
        self._reactor = reactor
        self._failures: dict[str, str] = {}
        self._tried: set[tuple[str, int]] = set()
        self._running: _Run | None = None
        self._again: Any = None
        self._is_stopped = False

    @property
    def command(self) -> tuple[str, ...]:
        """The program and its arguments; empty for none."""
        return tuple(self._command)

    @property
    def failure(self) -> str:
        """One line while it fails, else empty."""
        return "; ".join(self._failures[name] for name in sorted(self._failures))

    def replace(self, command: Sequence[str]) -> None:
        """Run another program from now on."""
        self._command = command
        self._failures.clear()
        self.run()

    def run(self) -> None:
        """Tell the hook of everything it does not know; nothing happens without one, or while it runs."""
        if self._running is None and self._command and not self._is_stopped:
            self._tried.clear()
            self._go_on()

    def stop(self) -> None:
        """End what runs; it is told again after the next start."""
        self._is_stopped = True
        if self._again is not None and self._again.active():
            self._again.cancel()
        if self._running is not None:
            self._running.kill()

    def _go_on(self) -> None:
        try:
            waiting = [one for one in self._store.untold() if one not in self._tried]
        except TrustError as error:
            self._failed("", str(error))
            return
        self._failures.pop("", None)
        if waiting:
            self._tell(*waiting[0])

    def _tell(self, name: str, version: int) -> None:
        self._tried.add((name, version))
        environment = {
            "PATH": _PATH,
            "ESGF_GOSSIP_SECRET_NAME": name,
            "ESGF_GOSSIP_SECRET_VERSION": str(version),
            "ESGF_GOSSIP_SECRET_PATH": str(self._store.path(name)),
        }
        program = self._command[0]
        if not os.access(program, os.X_OK):
            self._failed("", f"the secret hook {program} is no program that this user may run")
            return
        self._running = _Run(self._reactor, lambda reason: self._ended(name, version, reason))
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._reactor.spawnProcess(
                self._running,
                program,
                list(self._command),
                environment,
                str(self._store.folder),
                childFDs={0: nowhere, 1: nowhere, 2: nowhere},
            )
        except OSError as error:
            self._running = None
            self._failed("", f"the secret hook {program} cannot be started: {error.strerror}")
        finally:
            os.close(nowhere)

    def _ended(self, name: str, version: int, reason: str) -> None:
        self._running = None
        if self._is_stopped:
            return
        if reason:
            self._failed(name, f"the hook for secret {name} {version} failed: {reason}")
        else:
            self._failures.pop(name, None)
            self.log.info("the hook was told of secret {name} {version}", name=name, version=version)
            try:
                self._store.note_told(name, version)
            except TrustError as error:
                self._failed(name, str(error))
        self._go_on()

    def _failed(self, name: str, reason: str) -> None:
        self._failures[name] = reason
        self.log.warn("trust: {reason}; it is tried again in {again} s", reason=reason, again=int(AGAIN_S))
        if self._again is None or not self._again.active():
            self._again = self._reactor.callLater(AGAIN_S, self.run)


class _Run(ProcessProtocol):
    """One run, ended by the clock if need be."""

    def __init__(self, reactor: Any, ended: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._ended = ended
        self._deadline: Any = None
        self._is_late = False

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
