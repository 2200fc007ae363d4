"""The file of the control socket: private, replaced when stale, removed at the end."""

import os
import socket
import stat

import pytest
from twisted.internet import unix
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock, RaisingMemoryReactor

from esgf_gossip.web.control import ControlSocket, ControlSocketError, peer_uid
from helpers.web import StubDaemon


class SocketReactor(MemoryReactorClock):
    """Makes real socket files but never runs; notes the mode at the instant of their making."""

    def __init__(self):
        super().__init__()
        self.umasks = []

    def listenUNIX(self, address, factory, backlog=50, mode=0o666, wantPID=0):  # noqa: N803 - Twisted's own
        umask = os.umask(0o077)
        os.umask(umask)
        self.umasks.append(umask)
        port = unix.Port(address, factory, backlog, mode, self, wantPID)
        port.startListening()
        return port


@pytest.fixture
def reactor():
    """A reactor that makes real socket files."""
    return SocketReactor()


@pytest.fixture
def path(tmp_path):
    """Where the socket will be."""
    return tmp_path / "control.sock"


def stopped(control, reactor):
    """Stop the socket and see it stopped."""
    outcome = control.stop()
    reactor.advance(0)
    results = []
    outcome.addCallback(results.append)
    assert len(results) == 1


def a_stale(path):
    """Leave a socket as a crash does."""
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
        crashed.listen()


def test_socket_is_private_from_its_first_instant(reactor, path):
    """Mode 0600, whatever the umask, with no moment of a wider one; the umask is as before."""
    before = os.umask(0)
    try:
        control = ControlSocket(path, StubDaemon(), reactor)
        control.start()
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert reactor.umasks == [0o177]
    assert stat.S_IMODE(path.with_suffix(".lock").lstat().st_mode) & 0o666 == 0o600
    stopped(control, reactor)


def test_socket_is_removed_on_stop_and_may_come_again(reactor, path):
    """A stopped daemon leaves no socket, a second stop is no error, a restart works."""
    control = ControlSocket(path, StubDaemon(), reactor)
    for _ in range(2):
        control.start()
        assert path.is_socket()
        stopped(control, reactor)
        assert not path.exists()
    stopped(control, reactor)


def test_stop_survives_a_removed_file(reactor, path):
    """Whoever removed the socket does not keep the daemon from stopping."""
    control = ControlSocket(path, StubDaemon(), reactor)
    control.start()
    path.unlink()
    stopped(control, reactor)
    assert not path.exists()


def test_stale_socket_is_replaced(reactor, path):
    """What a crashed daemon left is no obstacle."""
    a_stale(path)
    old = path.lstat().st_ino, path.lstat().st_ctime_ns
    control = ControlSocket(path, StubDaemon(), reactor)
    control.start()
    assert old != (path.lstat().st_ino, path.lstat().st_ctime_ns)
    stopped(control, reactor)


def test_living_daemon_is_not_disturbed(reactor, path):
    """A second daemon ends with a clear error; the first keeps its socket, and the place is free later."""
    first, second = (ControlSocket(path, StubDaemon(), reactor) for _ in range(2))
    first.start()
    before = path.lstat()
    with pytest.raises(ControlSocketError, match="another daemon is running"):
        second.start()
    assert before == path.lstat()
    stopped(first, reactor)
    second.start()
    stopped(second, reactor)


def test_living_socket_without_a_lock_is_not_disturbed(reactor, path):
    """Somebody who answers on the socket is a living daemon, lock or not; the refused one drops its lock."""
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()
        control = ControlSocket(path, StubDaemon(), reactor)
        for _ in range(2):
            with pytest.raises(ControlSocketError, match="another daemon is running"):
                control.start()
    control.start()
    stopped(control, reactor)


def test_a_file_that_is_no_socket_is_never_removed(reactor, path):
    """Something else under that name is named, not deleted."""
    path.write_text("precious")
    with pytest.raises(ControlSocketError, match="is no socket"):
        ControlSocket(path, StubDaemon(), reactor).start()
    assert path.read_text() == "precious"


def test_a_path_longer_than_a_socket_address_works(reactor, tmp_path):
    """Deep folders are no fault: the socket is bound under a short name of the same folder."""
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    control = ControlSocket(folder / "control.sock", StubDaemon(), reactor)
    control.start()
    assert stat.S_ISSOCK(os.lstat(folder / "control.sock").st_mode)
    with pytest.raises(ControlSocketError, match="another daemon is running"):
        ControlSocket(folder / "control.sock", StubDaemon(), reactor).start()
    stopped(control, reactor)
    assert [name for name in os.listdir(folder) if name.endswith(".sock")] == []


def test_socket_that_cannot_be_made_is_explained(path):
    """What the kernel says against a socket is told in one line, and the lock is dropped."""
    refusing = RaisingMemoryReactor(CannotListenError(None, str(path), OSError("no sockets here")))
    for _ in range(2):
        with pytest.raises(ControlSocketError, match="no sockets here"):
            ControlSocket(path, StubDaemon(), refusing).start()


def test_missing_folder_is_explained(reactor, tmp_path):
    """A state folder that is not there is told in one line."""
    with pytest.raises(ControlSocketError, match="No such file"):
        ControlSocket(tmp_path / "no" / "control.sock", StubDaemon(), reactor).start()


def test_the_user_at_the_other_end_is_known():
    """The kernel says whose process asks."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    assert peer_uid(ours) == os.getuid()
    ours.close()
    theirs.close()
