"""
Issues of the errata service: why a dataset is not as it should be, and the change users are told of.

Pure. Source: docs/tracking.md, "Errata".
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from esgf_gossip.core.limits import TIME_MS_MAX
from esgf_gossip.sources.errata_service import SEVERITIES, UID
from esgf_gossip.tracking.events import ERRATUM, change_key
from esgf_gossip.tracking.identity import DatasetId, IdentityError, parse_dataset
from esgf_gossip.tracking.matches import Change

DATASETS: Final = 100_000
TITLE_CHARACTERS: Final = 255
WORD_CHARACTERS: Final = 40
# Of these severities users are told; of the others they read as a reason.
TOLD_SEVERITIES: Final = frozenset({"high", "critical"})
# What the service itself shows to everybody.
PUBLIC: Final = frozenset({"accepted", "not-required"})


class ErrataError(ValueError):
    """Report in one line why an answer is no issue."""


@attrs.frozen
class Issue:
    """One issue as a reason: what is wrong, how bad it is, where to read more, whether it was mended."""

    uid: str
    title: str
    severity: str
    link: str
    status: str = ""


@attrs.frozen
class Erratum:
    """
    One issue with all it concerns.

    Args:
        issue: what is said.
        moderation: what its moderators say of it.
        datasets: the versions it names.
        unread: how many names were none.
        created_ms: Unix milliseconds; 0: not said.
        updated_ms: the latest change; at least ``created_ms``.
    """

    issue: Issue
    moderation: str
    datasets: tuple[DatasetId, ...] = attrs.field(repr=False)
    unread: int
    created_ms: int
    updated_ms: int

    @property
    def is_told(self) -> bool:
        """Tell whether it is one of those users are told of."""
        return self.moderation in PUBLIC and self.issue.severity in TOLD_SEVERITIES


def read_erratum(answer: Any, url: str) -> Erratum:
    """
    Read the answer of the service about one issue.

    Args:
        answer: the JSON value.
        url: of the service, for the link.

    Raises:
        ErrataError: it is none.
    """
    body = answer.get("issue", answer) if type(answer) is dict else None
    if type(body) is not dict:
        raise ErrataError("the answer is no issue")
    uid = body.get("uid")
    if type(uid) is not str or not UID.fullmatch(uid):
        raise ErrataError("the issue has no uid")
    uid = uid.lower()
    severity = _word(body.get("severity"))
    if severity not in SEVERITIES:
        raise ErrataError(f"issue {uid}: the severity is none of {', '.join(SEVERITIES)}")
    title = body.get("title")
    if type(title) is not str or not title.strip():
        raise ErrataError(f"issue {uid} has no title")
    names = body.get("datasets")
    if type(names) is not list or len(names) > DATASETS:
        raise ErrataError(f"issue {uid}: datasets is no list of at most {DATASETS}")
    datasets = dict.fromkeys(one for one in map(_dataset, names) if one is not None)
    unread = sum(_dataset(one) is None for one in names)
    created_ms = _time_ms(_field(body, "created"))
    changed = (_time_ms(_field(body, name)) for name in ("updated", "closed"))
    return Erratum(
        Issue(uid, _line(title), severity, f"{url}/static/view.html?uid={uid}", _word(body.get("status"))),
        _word(body.get("moderationStatus", body.get("moderation_status"))),
        tuple(datasets),
        unread,
        created_ms,
        max(created_ms, *changed),
    )


def change_of(issue: Issue, datasets: Iterable[DatasetId], epoch: int, occurred_ms: int) -> Change:
    """
    Return what users are told of an issue.

    Args:
        issue: what is said.
        datasets: those that nobody was told of yet.
        epoch: 0; one more each time that the issue names further datasets.
        occurred_ms: Unix milliseconds.
    """
    return Change(
        change_key(ERRATUM, issue.uid, epoch),
        ERRATUM,
        tuple(datasets),
        occurred_ms,
        title=issue.title,
        severity=issue.severity,
        link=issue.link,
    )


def _field(body: Mapping[str, Any], name: str) -> Any:
    return body.get(f"{name}Date", body.get(f"{name}_date"))


def _dataset(name: Any) -> DatasetId | None:
    try:
        return parse_dataset(name.strip()) if type(name) is str else None
    except IdentityError:
        return None


def _word(value: Any) -> str:
    word = value.strip().lower() if type(value) is str else ""
    return word if len(word) <= WORD_CHARACTERS and word.isprintable() else ""


def _line(text: str) -> str:
    line = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(line.split())[:TITLE_CHARACTERS]


def _time_ms(value: Any) -> int:
    """Return Unix milliseconds; the service writes UTC without saying so. 0 where it is no time."""
    try:
        time = dt.datetime.fromisoformat(value)
        time_ms = int((time if time.tzinfo else time.replace(tzinfo=dt.UTC)).timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        return 0
    return time_ms if 0 <= time_ms <= TIME_MS_MAX else 0
