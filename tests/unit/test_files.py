"""Files that are never half-written, and reads that end: files."""

import os
import stat

import pytest

from esgf_gossip.files import create_file, read_file, replace_file


def test_a_replaced_file_is_whole_and_has_its_mode(tmp_path):
    """Readers see the old content or the new; nothing is left beside it; the umask has no say."""
    path = tmp_path / "file"
    before = os.umask(0o077)
    try:
        replace_file(path, b"old")
        replace_file(path, b"new", 0o644)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path):
    """A folder in the place of the file stays, and no temporary file does."""
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError):
        replace_file(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == ["file"]


def test_a_created_file_never_replaces_another(tmp_path):
    """Not even a dangling symbolic link: a key is never overwritten."""
    path = tmp_path / "node.key"
    create_file(path, b"first")
    with pytest.raises(FileExistsError):
        create_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "link", b"third")
    assert sorted(os.listdir(tmp_path)) == ["link", "node.key"]


def test_a_read_is_bounded_and_never_waits(tmp_path):
    """A long file is cut; a FIFO, which would wait for a writer for ever, is refused at once."""
    (tmp_path / "long").write_bytes(b"x" * 100)
    assert read_file(tmp_path / "long", 10) == b"x" * 10
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="Not a regular file"):
        read_file(tmp_path / "fifo", 10)
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path, 10)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "missing", 10)
