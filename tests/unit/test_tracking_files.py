"""Downloads from access logs, and addresses from a file of users."""

import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.sources.access_files import LINE_BYTES, AccessFiles, LogPlace, parse_line, read_access_log
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.log_position import LogPosition
from esgf_gossip.sources.user_file import UserFile

OPENID = "https://idp.example/esgf-idp/openid/ada"
AT = datetime(2026, 7, 19, 8, 14, 12, tzinfo=UTC)
PATH = "/thredds/fileServer/css03/CMIP6/CMIP/a.nc"


def a_line(user=OPENID, target=PATH, status=200, method="GET"):
    """Return a line as nginx writes it."""
    stamp = AT.strftime("%d/%b/%Y:%H:%M:%S %z")
    return f'10.0.0.1 - {user} [{stamp}] "{method} {target} HTTP/1.1" {status} 9 "-" "wget/1.2" "-" [0.1]'.encode()


def test_a_line_names_user_file_and_time():
    """A whole and a partial answer are downloads; the query is no part of a file's name."""
    found = parse_line(a_line(target=f"{PATH}?dods=1"), "dn.example")
    assert (found.openid, found.url) == (OPENID, f"https://dn.example{PATH}")
    assert found.fetched_ms == AT.timestamp() * 1000
    assert found.is_whole
    assert not parse_line(a_line(status=206), "dn.example").is_whole
    assert parse_line(a_line(user="a\\x22b"), "h").openid == 'a"b'


@pytest.mark.parametrize(
    "line",
    [
        a_line(user="-"),
        a_line(status=404),
        a_line(method="POST"),
        a_line(target="http://proxy.example/"),
        a_line(user="a\\x0Ab"),
        a_line(target="/" + "a" * LINE_BYTES),
        b"",
        a_line().replace(b"Jul", b"Xyz"),
    ],
)
def test_what_is_no_download_is_passed_over(line):
    """Nobody named, an error, another method, a broken line: nothing is made of it."""
    assert parse_line(line, "dn.example") is None


@given(st.binary(max_size=200))
def test_any_line_is_a_download_or_none(line):
    """No bytes in a log raise anything."""
    assert parse_line(line, "h") is None or b'"GET ' in line


def test_a_log_is_followed_over_its_rotation(tmp_path):
    """What was written into the old file after the last look is read there, then the new one from its beginning."""
    log = tmp_path / "access.log"
    log.write_bytes(a_line() + b"\n" + a_line(user="-") + b"\n" + a_line()[:30])
    first = read_access_log(log, LogPlace(), "dn.example")
    assert (len(first.downloads), first.passed_over, first.is_more) == (1, 1, False)
    assert read_access_log(log, first.place, "dn.example").place == first.place
    with log.open("ab") as more:
        more.write(a_line()[30:] + b"\n")
    os.rename(log, tmp_path / "access.log.1")
    log.write_bytes(a_line(user="https://idp.example/openid/bo") + b"\n")
    old = read_access_log(log, first.place, "dn.example")
    assert ([one.openid for one in old.downloads], old.is_more) == ([OPENID], True)
    new = read_access_log(log, old.place, "dn.example")
    assert [one.openid for one in new.downloads] == ["https://idp.example/openid/bo"]
    log.write_bytes(b"")
    assert read_access_log(log, new.place, "dn.example").place.offset_bytes == 0


def test_a_log_that_is_not_there_is_told(tmp_path):
    """The error names the setting, the file and what to do."""
    with pytest.raises(SourceError, match=r"access_logs .*gone: No such file"):
        read_access_log(tmp_path / "gone", LogPlace(), "h")


def test_addresses_come_from_the_file_as_it_is_now(tmp_path):
    """The file is read again when it changed; comments and empty lines are passed over."""
    path = tmp_path / "users.csv"
    path.write_text(f"# users\n{OPENID},ada@example.org\n\n")
    path.chmod(0o600)
    users = UserFile(path, str.lower)
    assert users.address_of(OPENID.upper()) == "ada@example.org"
    assert users.address_of("https://idp.example/openid/bo") is None
    path.write_text(f"{OPENID},ada@new.example.org\n")
    assert users.address_of(OPENID) == "ada@new.example.org"


@pytest.mark.parametrize(
    ("content", "mode", "expected"),
    [
        ("a,b@example.org\n", 0o604, "others can read it; chmod 640"),
        ("a,secret\n", 0o600, "user 1 is not OPENID,ADDRESS"),
        ("a,b@c,d@e\n", 0o600, "user 1 is not OPENID,ADDRESS"),
    ],
)
def test_a_wrong_file_of_users_is_told_without_its_content(tmp_path, content, mode, expected):
    """The error names file and row, and no address."""
    path = tmp_path / "users.csv"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(SourceError, match=expected) as caught:
        UserFile(path, str).address_of("a")
    assert "secret" not in str(caught.value)


def test_a_store_gets_every_line_once_more_rather_than_never(tmp_path):
    """Lines come again until the store has them; without new ones nothing comes; a new store gets all anew."""
    log, places = tmp_path / "access.log", tmp_path / "places.json"
    log.write_bytes((a_line(user="-") + b"\n") * 3)
    source = AccessFiles([log], "dn.example", places)
    nothing = source.read(LogPosition(), 0, is_rechecking=True)
    assert (nothing.rows, nothing.position.highest) == ((), 0)
    with log.open("ab") as more:
        more.write((a_line() + b"\n") * 2)
    first = source.read(nothing.position, 0, is_rechecking=False)
    assert [row.id for row in first.rows] == [1, 2]
    assert (
        AccessFiles([log], "dn.example", places).read(LogPosition(), 0, is_rechecking=False).rows
        == first.rows
    )
    assert source.read(first.position, 0, is_rechecking=False).rows == ()
    again = AccessFiles([log], "dn.example", places)
    assert again.read(first.position, 0, is_rechecking=True).rows == ()
    assert [row.id for row in again.read(LogPosition(), 0, is_rechecking=True).rows] == [1, 2]
    places.write_text("{")
    with pytest.raises(SourceError, match="read from their beginning"):
        AccessFiles([log], "dn.example", places).read(LogPosition(), 0, is_rechecking=True)
