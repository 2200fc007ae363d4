"""The program that is told of arrived secrets: what it is given, what it is not, and what becomes of one that fails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from esgf_gossip.net.hook_run import HOOK_S
from esgf_gossip.net.secret_hook import AGAIN_S, SecretHook
from esgf_gossip.trust.secret_store import SecretStore

PLAIN = b"Correct-Horse-Battery-Staple-7f"


@attrs.define
class Spawned:
    """One run of the hook, as the reactor was asked for it; ends when the test says so."""

    protocol: Any
    program: str
    words: list[str]
    environment: dict[str, str]
    folder: str
    descriptors: dict[int, str]
    signals: list[str] = attrs.field(factory=list)
    pid: int = 7

    def signalProcess(self, name: str) -> None:
        """Note a signal."""
        self.signals.append(name)

    @property
    def name(self) -> str:
        """Which secret it was told of."""
        return self.environment["ESGF_GOSSIP_SECRET_NAME"]

    def end(self, code: int | None = 0) -> None:
        """End it, with an exit code, or by a signal."""
        reason = ProcessDone(0) if code == 0 else ProcessTerminated(code, None if code else 9)
        self.protocol.processEnded(Failure(reason))


class Reactor(Clock):
    """A clock that starts no processes and remembers which it should have."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Spawned] = []
        self.refuses = False

    def spawnProcess(
        self,
        protocol: Any,
        program: str,
        words: list[str],
        environment: dict[str, str],
        folder: str,
        childFDs: dict[int, int],  # noqa: N803 - Twisted's name
    ) -> Spawned:
        """Remember a process."""
        if self.refuses:
            raise OSError(11, "Resource temporarily unavailable")
        shown = {number: os.readlink(f"/proc/self/fd/{own}") for number, own in childFDs.items()}
        self.runs.append(Spawned(protocol, program, words, environment, folder, shown))
        protocol.makeConnection(self.runs[-1])
        return self.runs[-1]


@pytest.fixture
def program(tmp_path: Path) -> str:
    """Make a file that may be executed."""
    path = tmp_path / "hook"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    """Make a trust directory with two secrets that nobody was told of."""
    (tmp_path / "trust").mkdir()
    found = SecretStore(tmp_path / "trust")
    found.keep("aa", 1, PLAIN)
    found.keep("bb", 2, PLAIN)
    return found


def test_it_is_given_name_version_and_path_and_nothing_else(
    store: SecretStore, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell, no word of the secret, nothing of the daemon's environment, no output to anywhere."""
    monkeypatch.setenv("DAEMONS_OWN", "secret")
    reactor = Reactor()
    SecretHook(store, [program, "$(id)", "-x", "-x"], reactor).run()
    (run,) = reactor.runs
    assert (run.program, run.words) == (program, [program, "$(id)", "-x", "-x"])
    assert run.environment == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "ESGF_GOSSIP_SECRET_NAME": "aa",
        "ESGF_GOSSIP_SECRET_VERSION": "1",
        "ESGF_GOSSIP_SECRET_PATH": str(store.path("aa")),
    }
    assert run.descriptors == dict.fromkeys((0, 1, 2), os.devnull)
    assert PLAIN.decode() not in repr(run)


def test_each_is_told_once_and_one_at_a_time(store: SecretStore, program: str) -> None:
    """The second begins when the first has ended; what arrives meanwhile follows; then there is rest."""
    reactor = Reactor()
    hook = SecretHook(store, [program], reactor)
    hook.run()
    hook.run()
    assert [run.name for run in reactor.runs] == ["aa"]
    store.keep("cc", 1, PLAIN)
    for number in range(3):
        reactor.runs[number].end()
    assert [run.name for run in reactor.runs] == ["aa", "bb", "cc"]
    assert (store.untold(), hook.failure, reactor.getDelayedCalls()) == ([], "", [])


def test_one_that_fails_holds_up_no_other_and_is_told_again(store: SecretStore, program: str) -> None:
    """The failure is shown, with its code alone, until that secret's hook has done its work."""
    reactor = Reactor()
    hook = SecretHook(store, [program], reactor)
    hook.run()
    reactor.runs[0].end(3)
    reactor.runs[1].end()
    assert store.untold() == [("aa", 1)]
    assert hook.failure == "the hook for secret aa 1 failed: exit code 3"
    assert len(reactor.runs) == 2
    reactor.advance(AGAIN_S)
    reactor.runs[2].end()
    assert [run.name for run in reactor.runs] == ["aa", "bb", "aa"]
    assert (store.untold(), hook.failure) == ([], "")


def test_one_that_does_not_end_is_ended(store: SecretStore, program: str) -> None:
    """After its time it is killed, and that is its failure."""
    reactor = Reactor()
    hook = SecretHook(store, [program], reactor)
    hook.run()
    reactor.advance(HOOK_S)
    assert reactor.runs[0].signals == ["KILL"]
    reactor.runs[0].end(None)
    assert hook.failure == "the hook for secret aa 1 failed: not done within 60 s"


def test_when_the_daemon_stops_nothing_is_left(store: SecretStore, program: str) -> None:
    """It is killed, nobody calls that a failure, and no timer stays."""
    reactor = Reactor()
    hook = SecretHook(store, [program], reactor)
    hook.run()
    reactor.runs[0].end(1)
    hook.stop()
    assert reactor.runs[1].signals == ["KILL"]
    reactor.runs[1].end(None)
    hook.run()
    assert (len(reactor.runs), reactor.getDelayedCalls()) == (2, [])
    assert "bb" not in hook.failure


@pytest.mark.parametrize("mode", [None, 0o644])
def test_what_is_no_program_is_said_once(store: SecretStore, program: str, mode: int | None) -> None:
    """Missing or not executable: one line with its path; with another program it is over."""
    path = Path(program)
    path.chmod(mode) if mode else path.unlink()
    reactor = Reactor()
    hook = SecretHook(store, [program], reactor)
    hook.run()
    assert hook.failure == f"the secret hook {program} is no program that this user may run"
    assert reactor.runs == []
    hook.replace(["/bin/true"])
    reactor.runs[0].end()
    reactor.runs[1].end()
    assert (hook.failure, store.untold()) == ("", [])


def test_a_host_that_can_start_nothing_tries_later(store: SecretStore, program: str) -> None:
    """The reason is shown, and the next time it works."""
    reactor = Reactor()
    reactor.refuses = True
    hook = SecretHook(store, [program], reactor)
    hook.run()
    assert hook.failure == f"the secret hook {program} cannot be started: Resource temporarily unavailable"
    reactor.refuses = False
    reactor.advance(AGAIN_S)
    for number in range(2):
        reactor.runs[number].end()
    assert (hook.failure, store.untold()) == ("", [])
