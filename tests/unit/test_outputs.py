"""When registration.xml is written, and what its stamp is: storage.outputs."""

import os

import pytest

from esgf_gossip.storage import output_file
from esgf_gossip.storage.database import FILE_NAME, Database
from esgf_gossip.storage.outputs import RegistrationFile
from esgf_gossip.views.federation import FederationView, OwnState
from esgf_gossip.views.registration_xml import root_timestamp_ms
from helpers.site import a_site, a_view

OWN = OwnState("a.example.org", "fed.example.org", "0", 1, 1, 0, 0, 0, 0)


def _view(*nodes):
    return FederationView(0, b"", OWN, nodes)


def _node(**properties):
    from esgf_gossip.esgf.site_data import build_registration

    return a_view(build_registration(a_site(properties)))


@pytest.fixture
def database(tmp_path):
    """An open database."""
    opened = Database(tmp_path / FILE_NAME)
    yield opened
    opened.close()


def test_an_unchanged_view_leaves_the_file_alone(tmp_path, database):
    """Readers that look at the mtime see nothing new where nothing is new."""
    document = RegistrationFile(tmp_path / "registration.xml", database)
    assert document.update(_view(_node())) is True
    before = os.stat(tmp_path / "registration.xml")
    assert document.update(_view(_node())) is False
    after = os.stat(tmp_path / "registration.xml")
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_restart_keeps_file_and_stamp_while_nothing_changed(tmp_path, database):
    """A restart alone is no change: the same bytes, the same inode."""
    RegistrationFile(tmp_path / "registration.xml", database).update(_view(_node()))
    before = (tmp_path / "registration.xml").read_bytes()
    again = RegistrationFile(tmp_path / "registration.xml", database)
    assert again.update(_view(_node())) is False
    assert before == (tmp_path / "registration.xml").read_bytes() == again.content


def test_the_stamp_rises_even_over_a_lost_file_and_an_old_one_from_the_future(tmp_path, database):
    """Readers skip a document whose stamp does not rise, so it rises over everything ever written."""
    path = tmp_path / "registration.xml"
    first = RegistrationFile(path, database)
    first.update(_view(_node()))
    written = root_timestamp_ms(first.content)
    path.unlink()
    second = RegistrationFile(path, database)
    second.update(_view(_node(**{"node.short.name": "OTHER"})))
    assert written < root_timestamp_ms(second.content)
    path.write_bytes(
        second.content.replace(
            b'timeStamp="%d"' % root_timestamp_ms(second.content), b'timeStamp="9000000000000"', 1
        )
    )
    third = RegistrationFile(path, database)
    third.update(_view(_node()))
    assert root_timestamp_ms(third.content) == 9000000000001


def test_a_file_of_somebody_else_is_replaced(tmp_path, database):
    """What the installer left, an empty file above all, does not stay."""
    (tmp_path / "registration.xml").write_bytes(b"")
    document = RegistrationFile(tmp_path / "registration.xml", database)
    assert document.update(_view()) is True
    assert (tmp_path / "registration.xml").read_bytes().count(b"<Registration ") == 1


def test_a_disk_that_refuses_is_told_and_tried_again(tmp_path, database):
    """The new content is served at once, written when it can be, and never half-written."""
    path = tmp_path / "missing" / "registration.xml"
    document = RegistrationFile(path, database)
    assert document.update(_view(_node())) is True
    assert str(path) in document.write_error
    assert b"<Node " in document.content
    path.parent.mkdir()
    document.update(_view(_node()))
    assert document.write_error == ""
    assert path.read_bytes() == document.content
    assert os.listdir(path.parent) == ["registration.xml"]


def test_a_document_that_is_only_served_is_not_written(tmp_path, database):
    """``[outputs] files`` without it leaves the file alone."""
    document = RegistrationFile(None, database)
    document.update(_view(_node()))
    assert b"<Node " in document.content
    assert not (tmp_path / "registration.xml").exists()


@pytest.mark.parametrize("harm", ["unlink", "cut", "same size"])
def test_a_document_that_somebody_took_away_or_harmed_comes_back(tmp_path, database, harm):
    """The next picture writes it again, with the stamp it had: it says nothing new."""
    path = tmp_path / "registration.xml"
    document = RegistrationFile(path, database)
    document.update(_view(_node()))
    whole = path.read_bytes()
    if harm == "unlink":
        path.unlink()
    else:
        path.write_bytes(b"" if harm == "cut" else b"x" * len(whole))
    assert document.update(_view(_node())) is False
    assert path.read_bytes() == whole == document.content


def test_a_file_that_nobody_touched_is_not_read_again(tmp_path, database, monkeypatch):
    """A look at each of six files is one stat: pictures are made four times a second."""
    document = RegistrationFile(tmp_path / "registration.xml", database)
    document.update(_view(_node()))
    monkeypatch.setattr(output_file, "read_file", lambda *_: pytest.fail("it was read"))
    assert document.update(_view(_node())) is False
