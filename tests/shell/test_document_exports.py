"""Documents as files for programs, and the hook that is told: real files, real processes."""

import os

import pytest
from twisted.internet.task import Clock

from esgf_gossip.document_exports import AGAIN_S, DocumentExports
from esgf_gossip.documents.names import parse_name
from esgf_gossip.net.hook_run import HOOK_S
from helpers.archivists import NAME, A, B, Offices, settings

OTHER = parse_name("CMIP6/search/facets.ini")


class Reactor(Clock):
    """Keeps the programs it is told to start, and ends them when told."""

    def __init__(self):
        super().__init__()
        self.started = []

    def spawnProcess(self, protocol, program, words, environment, folder, **more):
        """Note what would be started, and with which descriptors."""
        assert all(os.fstat(number) for number in more["childFDs"].values())
        self.started.append((protocol, words, environment, folder))
        protocol.transport = None
        protocol.connectionMade()

    def told(self):
        """Return what the hook was told of, since last asked."""
        return [
            (one[2]["ESGF_GOSSIP_DOCUMENT"], one[2]["ESGF_GOSSIP_DOCUMENT_EVENT"]) for one in self.started
        ]


@pytest.fixture
def reactor():
    """A reactor without processes."""
    return Reactor()


@pytest.fixture
def exports(reactor, tmp_path):
    """Two documents that are written into files, and a hook."""
    made = DocumentExports(reactor)
    made.replace({NAME: tmp_path / "facets.ini", OTHER: tmp_path / "other"}, ["/bin/true", "--word"])
    yield made
    made.stop()
    assert reactor.getDelayedCalls() == []


def ended(reactor, number, reason=""):
    """End a program that was started."""
    protocol = reactor.started[number][0]
    if protocol._deadline.active():
        protocol._deadline.cancel()
    protocol._ended(reason)


def test_a_file_is_written_where_it_differs_and_the_hook_is_told_once(exports, reactor, tmp_path):
    """The same content again writes nothing and tells nobody; what another program changed is put right."""
    exports.write(NAME, b"\1" * 32, b"one")
    exports.write(NAME, b"\1" * 32, b"one")
    path = tmp_path / "facets.ini"
    assert path.read_bytes() == b"one"
    _, words, environment, folder = reactor.started[0]
    assert (words, folder) == (["/bin/true", "--word"], str(tmp_path))
    assert environment == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "ESGF_GOSSIP_DOCUMENT": str(NAME),
        "ESGF_GOSSIP_DOCUMENT_PATH": str(path),
        "ESGF_GOSSIP_DOCUMENT_VERSION": "01" * 32,
        "ESGF_GOSSIP_DOCUMENT_EVENT": "written",
    }
    ended(reactor, 0)
    path.write_bytes(b"by hand")
    exports.write(NAME, b"\1" * 32, b"one")
    assert path.read_bytes() == b"one"
    assert len(reactor.started) == 2
    ended(reactor, 1)
    exports.remove(NAME, b"\2" * 32)
    exports.remove(NAME, b"\2" * 32)
    assert not path.exists()
    assert reactor.told()[2:] == [(str(NAME), "deleted")]
    ended(reactor, 2)


def test_one_program_at_a_time_and_only_the_newest_is_told(exports, reactor):
    """While one runs the others wait; a document that changed twice meanwhile is told once."""
    exports.write(NAME, b"\1" * 32, b"one")
    exports.write(OTHER, b"\2" * 32, b"two")
    exports.write(OTHER, b"\3" * 32, b"three")
    assert reactor.told() == [(str(NAME), "written")]
    ended(reactor, 0)
    assert [one[2]["ESGF_GOSSIP_DOCUMENT_VERSION"][:2] for one in reactor.started] == ["01", "03"]
    ended(reactor, 1)
    assert exports.fault == ""


def test_a_hook_that_fails_holds_up_no_other_and_is_told_again(exports, reactor):
    """The failure is said with its exit code until it has gone well."""
    exports.write(NAME, b"\1" * 32, b"one")
    exports.write(OTHER, b"\2" * 32, b"two")
    ended(reactor, 0, "exit code 3")
    assert exports.fault == f"the hook for document {NAME} failed: exit code 3"
    ended(reactor, 1)
    assert len(reactor.started) == 2
    reactor.advance(AGAIN_S)
    assert reactor.told()[2:] == [(str(NAME), "written")]
    reactor.advance(HOOK_S)
    reactor.started[2][0]._ended("not done within 60 s")
    assert "not done within" in exports.fault
    reactor.advance(AGAIN_S)
    ended(reactor, 3)
    assert exports.fault == ""


def test_what_cannot_be_written_or_started_is_said(exports, reactor, tmp_path):
    """A folder in the way of a file, a hook that is no program: one line each, and the node goes on."""
    (tmp_path / "other").mkdir()
    exports.write(OTHER, b"\1" * 32, b"one")
    assert str(tmp_path / "other") in exports.fault
    (tmp_path / "other").rmdir()
    exports.write(OTHER, b"\1" * 32, b"one")
    assert exports.fault == ""
    ended(reactor, 0)
    exports.replace({NAME: tmp_path / "facets.ini"}, [str(tmp_path / "nothing")])
    exports.write(NAME, b"\1" * 32, b"one")
    assert "no program that this user may run" in exports.fault
    exports.replace({NAME: tmp_path / "facets.ini"}, [])
    assert exports.fault == ""


def test_a_node_keeps_its_files_as_the_documents_are(tmp_path):
    """The file follows each change; in a conflict all nodes write the same version; deleted, it goes."""
    offices = Offices(2)
    paths = {name: tmp_path / name / "facets.ini" for name in (A, B)}
    for name, path in paths.items():
        path.parent.mkdir()
        offices[name].keeper.replace(settings(export={NAME: path}))
    offices[A].desk.put(NAME, b"one")
    offices.settle()
    assert [path.read_bytes() for path in paths.values()] == [b"one", b"one"]
    paths[B].write_bytes(b"by hand")
    offices[B].keeper.replace(settings(export={NAME: paths[B]}))
    assert paths[B].read_bytes() == b"one"

    offices.network.faults.partition([A], [B])
    for name in (A, B):
        offices[name].desk.put(NAME, name.encode())
    offices.settle()
    assert paths[A].read_bytes() == A.encode()
    offices.network.faults.heal()
    offices.settle(600)
    assert offices.agree()
    first = offices[A].desk.body(offices[A].library.get(NAME).heads[0])
    assert [path.read_bytes() for path in paths.values()] == [first, first]
    offices[B].desk.put(NAME, None, merge=True)
    offices.settle()
    assert not any(path.exists() for path in paths.values())


def test_a_document_that_no_longer_counts_leaves_its_file(tmp_path):
    """When a role is taken away nothing is known any more of what was agreed on: programs go on with what they have."""
    offices = Offices(2)
    path = tmp_path / "facets.ini"
    offices[B].keeper.replace(settings(export={NAME: path}))
    offices[A].desk.put(NAME, b"one")
    offices.settle()
    offices.verifier.roles.clear()
    offices.network.publish(A, {"registration": b"without the role"})
    offices.settle()
    assert offices[B].library.get(NAME) is None
    assert path.read_bytes() == b"one"
