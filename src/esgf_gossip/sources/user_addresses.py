"""
Mail addresses of users by their OpenID, from the databases of a site: its accounts, and those of its CoG.

Only reading, and only the columns that are needed; not of the reactor's thread.
Source: docs/tracking.md, "Addresses".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from esgf_gossip.esgf.openids import is_mail_address
from esgf_gossip.sources.gauge import SourceError
from esgf_gossip.sources.postgres_reading import reading

# By its unique index: a batch takes milliseconds.
QUESTION_S: Final = 10
BATCH: Final = 500

_WHO: Final = "[tracking]"
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
    return _asked(address, password_file, "database", _ACCOUNTS, openids)


def ask_cog(address: str, password_file: Path | None, openids: Sequence[str]) -> Mapping[str, Account]:
    """
    Ask the database of a CoG in the same way.

    Raises:
        SourceError: as ``ask_accounts``.
    """
    return _asked(address, password_file, "cog_database", _COG, openids)


def _asked(
    address: str, password_file: Path | None, key: str, question: str, openids: Sequence[str]
) -> Mapping[str, Account]:
    if len(openids) > BATCH:
        raise ValueError(f"at most {BATCH} OpenIDs at a time")
    with reading(address, password_file, _WHO, QUESTION_S, key) as connection:
        rows: list[Any] = connection.execute(question.encode(), [list(openids)]).fetchall()
    return {
        openid: Account(email.strip(), bool(is_valid) and is_mail_address(email.strip()), bool(is_opt_in))
        for openid, email, is_valid, is_opt_in in rows
    }


class AccountQuestions:
    """
    Asks one of the databases in a thread.

    Args:
        reactor: hears the answer.
        question: ``ask_accounts`` or ``ask_cog``.
        address: what libpq connects with.
        password_file: as in ``postgres_reading.reading``.
    """

    def __init__(
        self,
        reactor: Any,
        question: Callable[[str, Path | None, Sequence[str]], Mapping[str, Account]],
        address: str,
        password_file: Path | None,
    ) -> None:
        self._reactor: Final = reactor
        self._question: Final = question
        self._address: Final = address
        self._password_file: Final = password_file

    def ask(self, openids: Sequence[str]) -> Deferred[Mapping[str, Account]]:
        """Fire with the accounts found; fails with a SourceError."""
        return deferToThreadPool(
            self._reactor,
            self._reactor.getThreadPool(),
            self._question,
            self._address,
            self._password_file,
            openids,
        )


__all__ = ["BATCH", "Account", "AccountQuestions", "SourceError", "ask_accounts", "ask_cog"]
