"""
The mail server of a demo: takes every mail, hands none on, shows what each user got on a local page.

Mails lie as files in a folder too, ``0001.eml`` and so on, exactly as they came.
"""

from __future__ import annotations

import functools
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

import attrs
import jinja2
from twisted.internet.defer import Deferred, succeed
from twisted.mail import smtp
from twisted.web.http import Request
from twisted.web.pages import notFound
from twisted.web.resource import Resource
from zope.interface import implementer

from esgf_gossip.files import create_file

# No mail of ours comes near.
MAIL_BYTES: Final = 1024 * 1024
MAILS: Final = 10_000
_CSP: Final = b"default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'"
_CSP_OF_MAIL: Final = b"sandbox allow-popups; default-src 'none'; style-src 'unsafe-inline'"


@attrs.frozen
class Mail:
    """One mail as it came: envelope sender, the address it went to, its bytes."""

    number: int
    sender: str
    to: str
    content: bytes = attrs.field(repr=False)

    @property
    def message(self) -> EmailMessage:
        """The mail, read."""
        read: EmailMessage = message_from_bytes(self.content, policy=policy.default)  # type: ignore[assignment]
        return read


class Mailbox:
    """
    All mails of a demo.

    Args:
        folder: where they are written; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self.mails: Final[list[Mail]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, sender: str, to: str, content: bytes) -> bool:
        """Keep a mail; tell whether there was room."""
        if len(self.mails) >= MAILS:
            return False
        mail = Mail(len(self.mails) + 1, sender, to, content)
        create_file(self._folder / f"{mail.number:04}.eml", content, 0o644)
        self.mails.append(mail)
        return True


@implementer(smtp.IMessage)
class _Incoming:
    def __init__(self, mailbox: Mailbox, sender: str, to: str) -> None:
        self._mailbox = mailbox
        self._sender = sender
        self._to = to
        self._lines: list[bytes] = []
        self._size_bytes = 0

    def lineReceived(self, line: bytes) -> None:
        """Take a line."""
        self._size_bytes += len(line) + 2
        if self._size_bytes <= MAIL_BYTES:
            self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        """Keep the mail."""
        if self._size_bytes > MAIL_BYTES or not self._mailbox.add(
            self._sender, self._to, b"\r\n".join([*self._lines, b""])
        ):
            raise smtp.SMTPServerError(552, b"too much mail")
        return succeed(None)

    def connectionLost(self) -> None:
        """Forget what did not come whole."""
        self._lines.clear()


@implementer(smtp.IMessageDelivery)
class _Delivery:
    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._sender = ""

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:  # noqa: ARG002
        """Add nothing: the file is what was sent."""
        return b""

    def validateFrom(self, helo: Any, origin: Any) -> Any:  # noqa: ARG002 - Twisted's own signature
        """Take anybody's."""
        self._sender = str(origin)
        return origin

    def validateTo(self, user: Any) -> Any:
        """Take it for anybody."""
        return lambda: _Incoming(self._mailbox, self._sender, str(user.dest))


def mail_factory(mailbox: Mailbox) -> smtp.SMTPFactory:
    """Make the factory of an SMTP server that keeps what it gets."""
    factory = smtp.SMTPFactory()

    def build(_address: Any) -> Any:
        protocol = smtp.ESMTP()
        protocol.delivery = _Delivery(mailbox)
        protocol.host = b"localhost"
        protocol.factory = factory
        return protocol

    factory.buildProtocol = build
    factory.noisy = False
    return factory


class MailboxPage(Resource):
    """The list of users with their mails; below it each mail, as text, as its HTML (``.html``), as it came (``.eml``)."""

    def __init__(self, mailbox: Mailbox) -> None:
        super().__init__()
        self._mailbox = mailbox

    def getChild(self, path: bytes, request: Request) -> Resource:  # noqa: ARG002 - Twisted's own signature
        """Give the page of a mail, or the list."""
        number, dot, form = path.decode("ascii", "replace").partition(".")
        if not path:
            return self
        is_one = number.isdecimal() and 1 <= int(number) <= len(self._mailbox.mails)
        if not is_one or f"{dot}{form}" not in ("", ".html", ".eml"):
            return notFound(message="There is no such mail.")
        return _MailPage(self._mailbox.mails[int(number) - 1], form)

    def render_GET(self, request: Request) -> bytes:
        """Show who got what."""
        mails = self._mailbox.mails
        people = len({mail.to for mail in mails})
        return _page(request, title="Mailbox of the demo", mail=None, mails=mails, people=people)


class _MailPage(Resource):
    isLeaf = True

    def __init__(self, mail: Mail, form: str) -> None:
        super().__init__()
        self._mail = mail
        self._form = form

    def render_GET(self, request: Request) -> bytes:
        """Show the mail, or a part of it as it is."""
        message = self._mail.message
        if self._form == "eml":
            request.setHeader(b"content-type", b"text/plain; charset=utf-8")
            return self._mail.content
        if self._form == "html":
            part = message.get_body(("html",))
            request.setHeader(b"content-security-policy", _CSP_OF_MAIL)
            request.setHeader(b"content-type", b"text/html; charset=utf-8")
            return b"" if part is None else str(part.get_content()).encode()
        text = message.get_body(("plain",))
        content = "" if text is None else text.get_content()
        return _page(request, title=message["subject"], mail=self._mail, text=content)


@functools.cache
def _template() -> Any:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("esgf_gossip.demo", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("mailbox.html")


def _page(request: Request, **values: Any) -> bytes:
    request.setHeader(b"content-type", b"text/html; charset=utf-8")
    request.setHeader(b"content-security-policy", _CSP)
    rendered: str = _template().render(**values)
    return rendered.encode("utf-8", "replace")
