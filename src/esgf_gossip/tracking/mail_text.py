"""
The mail: plain text and HTML from templates, the headers of bulk mail, one size it never exceeds.

Headers are written here line by line: no text from outside is in one but the subject, which is encoded. Sources:
RFC 2369, 2919, 3834, 5322, 8058; docs/tracking.md, "The mail".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email import policy
from email.header import Header
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote

import attrs
from jinja2 import Environment, PackageLoader, StrictUndefined

from esgf_gossip.tracking.events import ERRATUM, EventType
from esgf_gossip.tracking.mail_items import (
    Content,
    Issue,
    IssuesOf,
    Item,
    SuccessorOf,
    Successors,
    held_datasets,
    inert,
    make_content,
    rank,
)
from esgf_gossip.tracking.preferences import ALL, dataset_scope
from esgf_gossip.tracking.tokens import Purpose, make_token
from esgf_gossip.trust.sealed_values import SealedValues

__all__ = ["Issue", "IssuesOf", "Item", "MailText", "Signer", "SuccessorOf"]

MAIL_BYTES: Final = 100 * 1024
# Datasets shown and files of each, tried in turn until the mail fits; with the last it always does.
_DETAIL: Final = ((100, 20), (100, 8), (60, 4), (30, 3), (15, 2), (5, 1), (0, 0))
_SUBJECT_CHARACTERS: Final = 140
# Links to unsubscribe from one dataset, each of some 300 bytes twice.
_DATASET_LINKS: Final = 5

# Returns the header field that signs the message, with its line end.
Signer = Callable[[bytes], bytes]


@attrs.frozen
class Links:
    """Where the links of one mail lead."""

    preferences: str
    unsubscribe: str
    everything: str
    datasets: tuple[tuple[str, str], ...]


class MailText:
    """
    Renders mails of one node.

    Args:
        values: makes the tokens of links.
        node: host name of this node, which says who writes.
        sender: address in From, without the part that differs in each mail.
        public_url: where tracking.listen is reached, without a slash at its end.
        signer: DKIM; None: not signed.
    """

    def __init__(
        self, values: SealedValues, node: str, sender: str, public_url: str, signer: Signer | None = None
    ) -> None:
        self._values: Final = values
        self._node: Final = node
        self._sender: Final = sender
        self._public_url: Final = public_url.rstrip("/")
        self._signer: Final = signer
        loader = PackageLoader("esgf_gossip.tracking", "templates")
        options = {"loader": loader, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
        self._html = Environment(autoescape=True, **options).get_template("mail.html.j2")
        # Plain text has nothing to escape: what is in it was made inert before.
        self._plain = Environment(autoescape=False, **options).get_template("mail.txt.j2")  # noqa: S701

    def message_id(self, number: int, person: bytes, now_ms: int) -> str:
        """Return the Message-ID of a mail, made once and kept with it; it tells nothing."""
        mark = self._values.keyed_hash("message-id", f"{number}/{person.hex()}/{now_ms}")[:15].hex()
        return f"<{mark}@{self._node}>"

    def render(
        self,
        items: Sequence[Item],
        successors: Successors,
        address: str,
        person: bytes,
        number: int,
        message_id: str,
        now_ms: int,
    ) -> bytes:
        """Return the whole message, at most ``MAIL_BYTES``."""
        subject = subject_of(items)
        message = b""
        for most_entries, most_files in _DETAIL:
            content = make_content(items, successors, most_entries, most_files)
            links = self._links(person, number, content)
            plain, html = self.bodies(subject, content, links)
            head = self._head(subject, address, links, person, message_id, now_ms)
            message = head + _body(plain, html)
            # What does not fit unsigned is not signed for nothing.
            if len(message) + 2048 <= MAIL_BYTES:
                break
        return message if self._signer is None else self._signer(message) + message

    def bodies(self, subject: str, content: Content, links: Links) -> tuple[str, str]:
        """Return plain text and HTML."""
        named = {"subject": subject, "content": content, "links": links, "node": self._node}
        return self._plain.render(**named), self._html.render(**named)

    def preview(self, items: Sequence[Item], successors: Successors) -> tuple[str, str, str]:
        """Return subject, plain text and HTML of a mail that is not sent: as it would be, but that links lead nowhere."""
        subject, content = subject_of(items), make_content(items, successors, *_DETAIL[0])
        nowhere = f"{self._public_url}/(a link of the receiver)"
        links = Links(nowhere, nowhere, nowhere, tuple((master, nowhere) for master in _masters(content)))
        return subject, *self.bodies(subject, content, links)

    def _links(self, person: bytes, number: int, content: Content) -> Links:
        datasets = tuple(
            (master, self._link(Purpose.UNSUBSCRIBE, person, dataset_scope(master)))
            for master in _masters(content)
        )
        return Links(
            preferences=self._link(Purpose.PREFERENCES, person),
            unsubscribe=self._link(Purpose.UNSUBSCRIBE, person, ALL),
            everything=self._link(Purpose.LIST, person, str(number)),
            datasets=datasets,
        )

    def _link(self, purpose: Purpose, person: bytes, what: str = "") -> str:
        return f"{self._public_url}/{purpose}/{make_token(self._values, purpose, person, what)}"

    def _head(
        self, subject: str, address: str, links: Links, person: bytes, message_id: str, now_ms: int
    ) -> bytes:
        token = make_token(self._values, Purpose.UNSUBSCRIBE, person, ALL)
        mailto = f"mailto:{self._sender}?subject={quote(f'unsubscribe {token}', safe='')}"
        date = format_datetime(datetime.fromtimestamp(now_ms / 1000, UTC))
        fields = (
            ("From", f'"ESGF dataset news of {self._node}" <{self._sender}>'),
            ("To", address),
            (
                "Subject",
                Header(subject, "utf-8", header_name="Subject").encode(linesep="\r\n")
                if not subject.isascii()
                else subject,
            ),
            ("Date", date),
            ("Message-ID", message_id),
            ("List-Id", f"ESGF dataset news <dataset-news.{self._node}>"),
            ("List-Unsubscribe", f"<{links.unsubscribe}>,\r\n <{mailto}>"),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
            ("Auto-Submitted", "auto-generated"),
            ("X-Auto-Response-Suppress", "All"),
            ("Precedence", "bulk"),
        )
        return "".join(f"{name}: {value}\r\n" for name, value in fields).encode("ascii")


def _masters(content: Content) -> Sequence[str]:
    """Return the datasets that have a link of their own: all, where they are few."""
    masters = dict.fromkeys(entry.master_id for group in content.groups for entry in group.entries)
    return tuple(masters) if len(masters) <= _DATASET_LINKS else ()


def subject_of(items: Sequence[Item]) -> str:
    """Return the subject: what happened, and to which dataset where it is one; of a new version, which one is new."""
    ordered = sorted(items, key=rank)
    masters = {one.master_id for item in items for one in held_datasets(item)}
    unnamed = sum(max(0, item.match.dataset_count - len(held_datasets(item))) for item in items)
    if len(items) == 1:
        text = _of_one(items[0])
    elif len(masters) == 1 and not unnamed:
        said = dict.fromkeys(_short(item) for item in ordered)
        text = f"{', '.join(said)}: {masters.pop()}"
        text = text[:1].upper() + text[1:]
    else:
        by_kind: dict[str, set[str]] = {}
        more: dict[str, int] = {}
        for item in ordered:
            kind, held = item.change.kind, held_datasets(item)
            by_kind.setdefault(kind, set()).update(one.master_id for one in held)
            more[kind] = more.get(kind, 0) + max(0, item.match.dataset_count - len(held))
        parts = [
            f"{len(found) + more[kind]} {_COUNTED.get(kind, 'changed')}" for kind, found in by_kind.items()
        ]
        text = f"{len(masters) + unnamed} datasets you fetched: {', '.join(parts)}"
    return inert(text, _SUBJECT_CHARACTERS)


def _of_one(item: Item) -> str:
    change, held = item.change, held_datasets(item)
    name = str(held[0] if held else "")
    if change.kind == ERRATUM:
        count = max(len(held), item.match.dataset_count)
        more = f" ({count} datasets)" if count > 1 else f": {name}"
        return f"Erratum{more}: {inert(change.title, 80)}"
    if change.successor is not None:
        return f"New version {change.successor.version} of {change.successor.master_id}"
    return f"{_FIRST.get(change.kind, 'Changed')}: {name}"


def _short(item: Item) -> str:
    change = item.change
    if change.successor is not None:
        return f"new version {change.successor.version}"
    return _FIRST.get(change.kind, "Changed").lower()


_FIRST: Final = {
    EventType.RETRACTED: "Retracted",
    EventType.NEW_VERSION: "New version",
    EventType.REINSTATED: "Valid again",
    ERRATUM: "Erratum",
}
_COUNTED: Final = {
    EventType.RETRACTED: "retracted",
    EventType.NEW_VERSION: "with a new version",
    EventType.REINSTATED: "valid again",
    ERRATUM: "with an erratum",
}


def _body(plain: str, html: str) -> bytes:
    """Return MIME fields, an empty line and both parts."""
    body = EmailMessage(policy=policy.SMTP)
    body.set_content(plain, cte="quoted-printable")
    body.add_alternative(html, subtype="html", cte="quoted-printable")
    # Made of what it parts, so that one mail rendered twice is the same.
    body.set_boundary(f"=_{hashlib.sha256((plain + html).encode()).hexdigest()[:32]}")
    return body.as_bytes()
