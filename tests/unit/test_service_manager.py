"""The service manager: what it is told and when, and which of its ports are taken; with real sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from esgf_gossip.service_manager import (
    RETRIES_MOST,
    RETRY_S,
    STATUS_CHARACTERS,
    STATUS_EVERY_S,
    ServiceManager,
    _number,
)

# Handed over as systemd does it: as descriptor 3 of a process of its own that was told its id.
HANDED = """
import os, sys
os.environ.update(LISTEN_PID=str(os.getpid() + int(sys.argv[1])), LISTEN_FDS="1", LISTEN_FDNAMES=sys.argv[2])
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from esgf_gossip.service_manager import ServiceManager, ServiceManagerError
manager = ServiceManager(os.environ, reactor)
try:
    print([port.getHost().port for port in manager.listen("http", Factory())])
except ServiceManagerError as error:
    print(error)
manager.close_unused()
try:
    os.fstat(3)
    print("open")
except OSError:
    print("closed")
print(sorted(name for name in os.environ if name.startswith("LISTEN")))
"""


@pytest.fixture
def manager_socket(tmp_path):
    """The socket of a service manager, which waits for nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def heard(receiver):
    """Return the messages that have come, each as its lines by name."""
    messages = []
    while True:
        try:
            message = receiver.recv(4096).decode()
        except BlockingIOError:
            return messages
        messages.append(dict(line.split("=", 1) for line in message.split("\n")))


def fill(receiver):
    """Send messages of others until no more go in."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, contextlib.suppress(BlockingIOError):
        other.setblocking(False)
        while other.sendto(b"FULL=1", receiver.getsockname()):
            pass


def a_manager(receiver, clock, **more):
    """Make the manager of a process that such a service manager has started."""
    return ServiceManager({"NOTIFY_SOCKET": receiver.getsockname(), **more}, clock)


def test_it_is_told_of_start_reload_and_stop(manager_socket):
    """Each state once, in order; the end of a reload too where the reload failed."""
    manager = a_manager(manager_socket, Clock())
    manager.ready(lambda: "3 nodes")
    assert heard(manager_socket) == [{"READY": "1", "STATUS": "3 nodes"}]
    with contextlib.suppress(ZeroDivisionError), manager.reload():
        begun = heard(manager_socket)
        raise ZeroDivisionError
    assert [list(message) for message in begun] == [["RELOADING", "MONOTONIC_USEC"]]
    assert begun[0]["MONOTONIC_USEC"].isdigit()
    assert heard(manager_socket) == [{"READY": "1"}]
    manager.stopping()
    assert heard(manager_socket) == [{"STOPPING": "1", "STATUS": "stopping"}]


def test_an_abstract_name_is_an_address_too():
    """Systemd writes @ for the zero byte in front."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0esgf-gossip-test-{os.getpid()}")
        receiver.setblocking(False)
        name = receiver.getsockname().decode().replace("\0", "@", 1)
        ServiceManager({"NOTIFY_SOCKET": name}, Clock()).ready(lambda: "x")
        assert [message["READY"] for message in heard(receiver)] == ["1"]


def test_signs_of_life_come_twice_per_period(manager_socket):
    """Half of WATCHDOG_USEC, as systemd recommends; a status that has not changed is not repeated."""
    clock = Clock()
    manager = a_manager(manager_socket, clock, WATCHDOG_USEC="20000000", WATCHDOG_PID=str(os.getpid()))
    state = ["1 node"]
    manager.ready(lambda: state[0])
    assert heard(manager_socket)[1:] == [{"WATCHDOG": "1"}]
    clock.advance(9.9)
    assert heard(manager_socket) == []
    clock.advance(0.1)
    assert heard(manager_socket) == [{"WATCHDOG": "1"}]
    state[0] = "2 nodes"
    clock.advance(10)
    assert heard(manager_socket) == [{"STATUS": "2 nodes", "WATCHDOG": "1"}]


def test_a_watchdog_of_another_process_is_not_fed(manager_socket):
    """WATCHDOG_PID names whom it watches; the status is told nevertheless."""
    clock = Clock()
    manager = a_manager(manager_socket, clock, WATCHDOG_USEC="2000000", WATCHDOG_PID=str(os.getpid() + 1))
    state = ["1 node"]
    manager.ready(lambda: state[0])
    state[0] = "2 nodes"
    clock.advance(STATUS_EVERY_S)
    assert heard(manager_socket)[1:] == [{"STATUS": "2 nodes"}]


def test_a_status_is_one_line(manager_socket):
    """Nothing in it can pass for another message, whatever its length."""
    a_manager(manager_socket, Clock()).ready(lambda: "a\nSTOPPING=1\0" + "b" * 1000)
    (message,) = heard(manager_socket)
    assert set(message) == {"READY", "STATUS"}
    assert message["STATUS"].startswith("a STOPPING=1 b")
    assert len(message["STATUS"]) == STATUS_CHARACTERS


def test_a_manager_that_does_not_read_is_asked_again(manager_socket):
    """A full queue loses nothing and holds up nobody: what waits goes out in order when there is room."""
    clock = Clock()
    fill(manager_socket)
    manager = a_manager(manager_socket, clock)
    manager.ready(lambda: "x")
    with manager.reload():
        pass
    assert "READY" not in {name for message in heard(manager_socket) for name in message}
    clock.advance(RETRY_S)
    assert [next(iter(message)) for message in heard(manager_socket)] == ["READY", "RELOADING", "READY"]


def test_a_manager_that_never_reads_is_given_up(manager_socket):
    """After a minute nothing of it is kept."""
    clock = Clock()
    fill(manager_socket)
    manager = a_manager(manager_socket, clock)
    with manager.reload():
        pass
    clock.pump([RETRY_S] * (RETRIES_MOST + 1))
    assert clock.getDelayedCalls() == []
    assert not manager._waiting


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/" + "a" * 200},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "-5", "LISTEN_FDS": "many"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "99999999999999999999", "LISTEN_FDNAMES": ":" * 1000},
    ],
)
def test_whatever_the_environment_says_the_daemon_runs(environment):
    """Without a manager, or with one that cannot be reached, every call does nothing."""
    manager = ServiceManager(environment, Clock())
    manager.ready(lambda: "x")
    with manager.reload():
        pass
    manager.stopping()
    assert manager.listen("http", None) == []
    manager.close_unused()
    assert environment == {}


@given(st.text())
def test_a_number_is_a_number_or_nothing(text):
    """No text makes a number beyond the bound, none raises."""
    assert 0 <= _number(text, 16) <= 16


def handed_over(what, name, of_process=0):
    """Run a process that gets a descriptor and tells what became of it."""
    # The shell gives it the number that systemd would.
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 3<&0 0</dev/null', "sh", sys.executable, "-c", HANDED, str(of_process), name],
        stdin=what,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_port_is_taken_by_its_name():
    """The port that systemd opened is served, its descriptor closed, and the variables gone."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        assert handed_over(port, "http") == [str([port.getsockname()[1]]), "closed", "[]"]


def test_a_port_of_another_name_is_closed():
    """Its clients are refused, instead of waiting for somebody who never accepts."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        assert handed_over(port, "ftp") == ["[]", "closed", "[]"]


def test_descriptors_of_another_process_are_left_alone():
    """LISTEN_PID says whom they are for."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        assert handed_over(port, "http", 1) == ["[]", "open", "[]"]


@pytest.mark.parametrize("kind", ["datagram", "unix", "not listening"])
def test_what_is_no_listening_port_is_refused(kind, tmp_path):
    """One line says which descriptor, and what to correct."""
    with socket.socket(
        socket.AF_UNIX if kind == "unix" else socket.AF_INET,
        socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM,
    ) as wrong:
        wrong.bind(str(tmp_path / "socket") if kind == "unix" else ("127.0.0.1", 0))
        if kind == "unix":
            wrong.listen()
        said = handed_over(wrong, "http")
    assert said[0].startswith("descriptor 3 from the service manager is no listening TCP port; correct")
    assert said[1:] == ["closed", "[]"]
