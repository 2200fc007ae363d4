"""
Mail addresses of users by their OpenID, as a site has them: its accounts, those of its CoG, a file of users.

Only reading, and only the columns that are needed; not of the reactor's thread.
Source: docs/tracking.md, "Addresses".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from esgf_gossip.esgf.openids import is_mail_address
from esgf_gossip.sources.connection import connect, ended_after, explained
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.user_file import UserFile

# By its unique index: a batch takes milliseconds.
CONNECT_S: Final = 5
QUESTION_S: Final = 10
# A server that holds the connection and says nothing is left so long after its question should have ended.
SLACK_S: Final = 5
LOCK_WAIT_MS: Final = 1000
BATCH: Final = 500

# status_code 1: the account is valid; notification_code 1: the user asked for mail, 0 is what everybody has.
_ACCOUNTS: Final = """
SELECT openid, email, coalesce(status_code, 0) = 1, coalesce(notification_code, 0) = 1
FROM esgf_security."user" WHERE openid = ANY(%s)
"""
_COG: Final = """
SELECT o.claimed_id, u.email, u.is_active, false
FROM public.django_openid_auth_useropenid AS o JOIN public.auth_user AS u ON u.id = o.user_id
WHERE o.claimed_id = ANY(%s)
ORDER BY o.id DESC
"""


@attrs.frozen
class Account:
    """
    One account, as a database of the site has it.

    ``is_valid``: it may be used, and its address is one; ``is_opt_in``: the user asked for mail.
    """

    address: str = attrs.field(repr=False)
    is_valid: bool
    is_opt_in: bool = False


def ask_accounts(address: str, password_file: Path | None, openids: Sequence[str]) -> Mapping[str, Account]:
    """
    Ask the site's ``esgf_security`` for the accounts of some OpenIDs, at most ``BATCH``; blocks for some seconds.

    Raises:
        SourceError: nobody answers, or the table is not there.
    """
    return _asked(address, password_file, "[tracking] database", "password_file", _ACCOUNTS, openids)


def ask_cog(address: str, password_file: Path | None, openids: Sequence[str]) -> Mapping[str, Account]:
    """
    Ask the database of a CoG in the same way.

    Raises:
        SourceError: as ``ask_accounts``.
    """
    return _asked(address, password_file, "[tracking] cog_database", "cog_password_file", _COG, openids)


def _asked(
    address: str,
    password_file: Path | None,
    setting: str,
    file_setting: str,
    question: str,
    openids: Sequence[str],
) -> Mapping[str, Account]:
    if len(openids) > BATCH:
        raise ValueError(f"at most {BATCH} OpenIDs at a time")
    with (
        contextlib.closing(connect(address, password_file, setting, CONNECT_S, file_setting)) as connection,
        explained(setting),
    ):
        connection.read_only = True
        with ended_after(connection, CONNECT_S + QUESTION_S + SLACK_S), connection.transaction():
            # In the transaction and for it alone: a pooler may hand the session to others.
            for name, value in (
                ("statement_timeout", f"{QUESTION_S}s"),
                ("lock_timeout", f"{LOCK_WAIT_MS}ms"),
            ):
                connection.execute("SELECT set_config(%s, %s, true)", [name, value])
            rows: list[Any] = connection.execute(question.encode(), [list(openids)]).fetchall()
    return {
        openid: Account(email.strip(), bool(is_valid) and is_mail_address(email.strip()), bool(is_opt_in))
        for openid, email, is_valid, is_opt_in in rows
    }


def ask_file(users: UserFile, openids: Sequence[str]) -> Mapping[str, Account]:
    """
    Ask the file of users in the same way; what is no plain address counts as none.

    Raises:
        SourceError: the file cannot be read, others can read it, or it is wrong.
    """
    found = ((openid, users.address_of(openid)) for openid in openids)
    return {openid: Account(text, is_mail_address(text)) for openid, text in found if text is not None}


class AccountQuestions:
    """
    Asks one of them in a thread.

    Args:
        reactor: hears the answer.
        question: one of the functions above with its first arguments bound.
    """

    def __init__(self, reactor: Any, question: Callable[[Sequence[str]], Mapping[str, Account]]) -> None:
        self._reactor: Final = reactor
        self._question: Final = question

    def ask(self, openids: Sequence[str]) -> Deferred[Mapping[str, Account]]:
        """Fire with the accounts found; fails with a SourceError."""
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, self._question, openids)


__all__ = ["BATCH", "Account", "AccountQuestions", "SourceError", "ask_accounts", "ask_cog", "ask_file"]
