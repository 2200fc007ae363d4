"""
The program an administrator has run when a secret has arrived: off the reactor, without a shell, once at a time.

It gets name, version and path in its environment, never the secret itself; what it prints goes nowhere, since it
may print the secret. Source: docs/trust.md, "Secrets".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.logger import Logger

from esgf_gossip.net.hook_run import HookRun
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.secret_store import SecretStore

# After a failure it is tried again so often: at least once each version, whatever happens to the daemon.
AGAIN_S: Final = 300.0


class SecretHook:
    """Runs the hook for every secret it has not been told of, one after the other; one that fails holds up no other."""

    log = Logger()

    def __init__(self, store: SecretStore, command: Sequence[str], reactor: Any) -> None:
        self._store = store
        self._command: Sequence[str] = command
        self._reactor = reactor
        self._failures: dict[str, str] = {}
        self._tried: set[tuple[str, int]] = set()
        self._running: HookRun | None = None
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
            "ESGF_GOSSIP_SECRET_NAME": name,
            "ESGF_GOSSIP_SECRET_VERSION": str(version),
            "ESGF_GOSSIP_SECRET_PATH": str(self._store.path(name)),
        }
        self._running = HookRun(self._reactor, lambda reason: self._ended(name, version, reason))
        fault = self._running.start(self._command, environment, self._store.folder)
        if fault:
            self._running = None
            self._failed("", f"the secret hook {fault}")

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
