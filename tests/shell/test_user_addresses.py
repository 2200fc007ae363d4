"""Addresses from a real PostgreSQL with the tables of a site and of a CoG: who counts, who does not, and no write."""

from __future__ import annotations

from functools import partial

import pytest
from twisted.internet import reactor

from esgf_gossip.esgf.openids import canonical_openid
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.user_addresses import (
    BATCH,
    Account,
    AccountQuestions,
    ask_accounts,
    ask_cog,
    ask_file,
)
from esgf_gossip.sources.user_file import UserFile
from helpers.postgres import READER, READER_PASSWORD, postgres_server
from helpers.turning import turned

IDP = "https://idp.example.org/esgf-idp/openid"
COG = """
CREATE TABLE public.auth_user (
    id serial PRIMARY KEY, username varchar(150) NOT NULL UNIQUE, email varchar(254) NOT NULL, is_active boolean NOT NULL
);
CREATE TABLE public.django_openid_auth_useropenid (
    id serial PRIMARY KEY, user_id integer NOT NULL REFERENCES public.auth_user (id), claimed_id text NOT NULL UNIQUE,
    display_id text NOT NULL
);
"""
USERS = [
    # name, address, status, notification
    ("ann", "ann@mail.example.org", 1, 0),
    ("bob", " bob@mail.example.org ", 1, 1),
    ("carol", "carol@mail.example.org", 0, 1),
    ("dave", "dave@mail.example.org", None, None),
    ("eve", "eve@mail.example.org\r\nBcc: x@example.net", 1, 0),
]


@pytest.fixture(scope="module")
def server():
    """A site's database with accounts of all kinds, and a CoG in the same."""
    with postgres_server() as running:
        with running.superuser() as connection:
            connection.execute(COG)
            for name, address, status, notification in USERS:
                connection.execute(
                    'INSERT INTO esgf_security."user" '
                    "(firstname, lastname, email, username, openid, status_code, notification_code) "
                    "VALUES ('x', 'y', %s, %s, %s, %s, %s)",
                    [address, name, f"{IDP}/{name}", status, notification],
                )
            for name, address, is_active in (
                ("ann", "ann@cog.example.org", True),
                ("carol", "c@cog.example.org", False),
            ):
                connection.execute(
                    "WITH made AS (INSERT INTO auth_user (username, email, is_active) VALUES (%s, %s, %s) RETURNING id) "
                    "INSERT INTO django_openid_auth_useropenid (user_id, claimed_id, display_id) SELECT id, %s, '' FROM made",
                    [name, address, is_active, f"{IDP}/{name}"],
                )
            connection.execute(
                f'GRANT SELECT (openid, email, status_code, notification_code) ON esgf_security."user" TO {READER}'
            )
            connection.execute(f"GRANT SELECT (id, email, is_active) ON public.auth_user TO {READER}")
            connection.execute(
                f"GRANT SELECT (id, user_id, claimed_id) ON public.django_openid_auth_useropenid TO {READER}"
            )
        yield running


@pytest.fixture
def password(tmp_path):
    """The file with the reader's password."""
    file = tmp_path / "password"
    file.write_text(f"{READER_PASSWORD}\n")
    return file


def names(*users):
    """Return the OpenIDs of some users."""
    return [f"{IDP}/{user}" for user in users]


def test_accounts_of_the_site(server, password):
    """Status 1 alone is valid, notification 1 alone an opt-in; an address with a second line is none; strangers are absent."""
    found = ask_accounts(server.address, password, names("ann", "bob", "carol", "dave", "eve", "zoe"))
    assert {
        openid.removeprefix(f"{IDP}/"): (one.is_valid, one.is_opt_in) for openid, one in found.items()
    } == {
        "ann": (True, False),
        "bob": (True, True),
        "carol": (False, True),
        "dave": (False, False),
        "eve": (False, False),
    }
    assert found[f"{IDP}/bob"].address == "bob@mail.example.org"
    assert "bob" not in repr(found[f"{IDP}/bob"])


def test_accounts_of_a_cog(server, password):
    """Active users by what they claimed when they came."""
    assert ask_cog(server.address, password, names("ann", "carol", "bob")) == {
        f"{IDP}/ann": Account("ann@cog.example.org", is_valid=True),
        f"{IDP}/carol": Account("c@cog.example.org", is_valid=False),
    }


def test_hostile_openids_are_texts_to_the_database(server, password):
    """Whatever a log holds is compared and never read as SQL; a full batch is one question."""
    hostile = ["'; DROP TABLE x; --", "%s", "{a,b}", "\\", '"', "\N{SNOWMAN}", *names("ann")]
    assert list(ask_accounts(server.address, password, hostile)) == names("ann")
    assert ask_accounts(server.address, password, [f"{IDP}/u{n}" for n in range(BATCH)]) == {}
    with pytest.raises(ValueError, match="at most"):
        ask_accounts(server.address, password, ["x"] * (BATCH + 1))


def test_what_is_missing_is_one_line_that_names_the_key(server, password, tmp_path):
    """A wrong database, a right that is missing, a password file that is none: the key of node.toml and no user."""
    with pytest.raises(SourceError, match=r"^\[tracking\] database: .*does not exist"):
        ask_accounts(server.address.replace("esgcet", "postgres"), password, names("ann"))
    with pytest.raises(SourceError, match=r"^\[tracking\] cog_database: .*does not exist"):
        ask_cog(server.address.replace("esgcet", "postgres"), password, names("ann"))
    with pytest.raises(SourceError, match=r"^\[tracking\] cog_password_file "):
        ask_cog(server.address, tmp_path / "none", names("ann"))
    with pytest.raises(SourceError, match=r"^\[tracking\] password_file "):
        ask_accounts(server.address, tmp_path / "none", names("ann"))


def test_it_is_asked_in_a_thread_and_leaves_nothing_open(server, password):
    """The reactor goes on; afterwards no session of ours is left."""
    reactor.getThreadPool().start()
    try:
        questions = AccountQuestions(reactor, partial(ask_accounts, server.address, password))
        assert list(turned(questions.ask(names("ann")))) == names("ann")
    finally:
        reactor.getThreadPool().stop()
    with server.superuser() as connection:
        left = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [READER]
        ).fetchone()
    assert left == (0,)


def test_accounts_of_a_file(tmp_path):
    """Spellings do not matter; a text with a second address in it is none."""
    path = tmp_path / "users.csv"
    path.write_text(
        f"# who,where\n{IDP.upper().replace('/ESGF-IDP/OPENID', '/esgf-idp/openid')}/ann/,ann@mail.example.org\n{IDP}/eve,a@b.org;c@d.org\n"
    )
    path.chmod(0o600)
    users = UserFile(path, canonical_openid)
    assert ask_file(users, names("ann", "eve", "zoe")) == {
        f"{IDP}/ann": Account("ann@mail.example.org", is_valid=True),
        f"{IDP}/eve": Account("a@b.org;c@d.org", is_valid=False),
    }
    path.chmod(0o644)
    with pytest.raises(SourceError, match="others can read it"):
        ask_file(UserFile(path, canonical_openid), names("ann"))
