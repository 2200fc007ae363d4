"""
One SMTP connection: set up with TLS and login as asked for, then one mail after the other, each with a bound in time.

Twisted's ESMTPClient speaks; what it leaves open is closed here: a session that rests between mails, a bound on the
whole of a mail and not only between two lines, replies without end, content whose lines begin with a dot wherever
its blocks are cut. Source: RFC 5321, sections 4.5.2 and 4.5.3.2.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.mail.imap4 import IClientAuthentication
from twisted.mail.smtp import CramMD5ClientAuthenticator, ESMTPClient, LOGINAuthenticator, PLAINAuthenticator
from twisted.python.failure import Failure

from esgf_gossip.tracking.outbox import Mail, Outcome, Result

CONNECT_S: Final = 30.0
# From the connection to the first mail: greeting, TLS, login.
SETUP_S: Final = 60.0
# One mail, all its replies; RFC 5321 allows ten minutes for the last alone, a relay at hand takes none.
MAIL_S: Final = 300.0
QUIT_S: Final = 3.0
REPLY_BYTES: Final = 16 * 1024
_SERVICE_CLOSES: Final = 421
_DOT_LINE: Final = re.compile(rb"(?m)^\.")
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


class SessionError(Exception):
    """Report that no mail can be sent over a connection, in one line that names no address."""


@attrs.frozen
class Login:
    """User and password at the SMTP server."""

    user: str
    password: str = attrs.field(repr=False)


@attrs.frozen
class SmtpServer:
    """
    Where mail is handed in.

    Args:
        host: of the server.
        port: of the server.
        security: ``none``, ``starttls`` (required, never given up) or ``tls``.
        identity: host name we greet with.
        tls: what makes the client's side of TLS, by the name of the host and failing closed; None with ``none``.
        login: None: none needed.
    """

    host: str
    port: int
    security: str
    identity: str
    tls: Any = None
    login: Login | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class SmtpSession(ESMTPClient):
    """
    A connection; ``ready`` fires with the session, or fails with a SessionError.

    Args:
        identity: host name we greet with.
        clock: for bounds in time.
        login: user and password; None: none needed.
        starttls: what makes TLS of the connection, or None: it stays as it is. TLS from the first byte is the
            endpoint's affair.
    """

    # Its log would hold addresses.
    debug = False
    MAX_LENGTH = REPLY_BYTES

    def __init__(self, identity: str, clock: IReactorTime, login: Login | None, starttls: Any) -> None:
        super().__init__(
            None if login is None else login.password.encode(), starttls, identity=identity.encode("ascii")
        )
        self.requireTransportSecurity = starttls is not None
        self.requireAuthentication = login is not None
        self.ready: Deferred[SmtpSession] = Deferred()
        self.is_open = False
        self._clock = clock
        self._deadline: IDelayedCall | None = None
        self._mail: Mail | None = None
        self._outcome: Deferred[Outcome] | None = None
        self._is_content_out = False
        self._reply_bytes = 0
        self._why = ""
        for kind in (
            () if login is None else (CramMD5ClientAuthenticator, LOGINAuthenticator, PLAINAuthenticator)
        ):
            authenticator: IClientAuthentication = kind(login.user.encode())
            self.registerAuthenticator(authenticator)

    def send(self, mail: Mail) -> Deferred[Outcome]:
        """Send one mail; fires with what came of it, never fails. One at a time."""
        if not self.is_open or self._mail is not None:
            return succeed(Outcome(Result.UNSENT, 0, "the connection is closed"))
        self._mail, self._is_content_out = mail, False
        self._outcome = Deferred()
        outcome = self._outcome
        self._bound(MAIL_S)
        if self._is_resting:
            self.smtpState_from(250, b"")
        return outcome

    def quit(self) -> None:
        """Close in good order: a mail under way is waited for a moment, and so is the answer to QUIT."""
        if self._mail is not None and self.is_open:
            self.is_open = False
            self._bound(QUIT_S)
        elif self.is_open:
            self.is_open = False
            self._bound(QUIT_S)
            self._disconnectFromServer()
        else:
            self.abort("stopped")

    def abort(self, why: str) -> None:
        """Cut the connection; a mail under way is UNSENT or UNKNOWN."""
        self._why = self._why or why
        self.is_open = False
        if self.transport is not None:
            self.transport.abortConnection()

    # What Twisted calls.

    def connectionMade(self) -> None:
        """Begin the bound of the set-up."""
        self._is_resting = False
        self._bound(SETUP_S)
        super().connectionMade()

    def lineReceived(self, line: bytes) -> Any:
        """Take one line of a reply; one that does not end ends the connection."""
        self._reply_bytes = self._reply_bytes + len(line) if line[3:4] == b"-" else 0
        if self._reply_bytes > REPLY_BYTES:
            self.abort("a reply of the server does not end")
            return None
        return super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Cut a server that sends no lines."""
        del line
        self.abort("a line of the server does not end")

    def smtpState_from(self, code: int, resp: bytes) -> None:
        """Rest until there is a mail, where Twisted would say good-bye."""
        if not self.is_open and self._outcome is None and not self.ready.called:
            self.is_open = True
            self._unbound()
            self._rest()
            self.ready.callback(self)
        elif self._mail is None:
            self._rest()
        else:
            self._is_resting = False
            super().smtpState_from(code, resp)

    def smtpState_helo(self, code: int, resp: bytes) -> None:
        """Greet as of old; Twisted would do so for ever where that is refused too."""
        super().smtpState_helo(code, resp)
        self._failresponse = self.smtpConnectionFailed

    def _rest(self) -> None:
        self._is_resting = True
        # Whatever a server says unasked ends it: the next reply would be taken for another.
        self._expected, self._okresponse, self._failresponse = [], self._unasked, self._unasked

    def _unasked(self, code: int, resp: bytes) -> None:
        del resp
        self.abort(f"the server closed the session ({code})")

    def getMailFrom(self) -> bytes:
        """Return the return path."""
        assert self._mail is not None
        return self._mail.sender.encode("ascii")

    def getMailTo(self) -> list[bytes]:
        """Return the one recipient."""
        assert self._mail is not None
        return [self._mail.recipient.encode("ascii")]

    def smtpState_data(self, code: int, resp: bytes) -> None:
        """Write the content whole."""
        del code, resp
        assert self._mail is not None
        self._is_content_out = True
        self.transport.write(as_content(self._mail.message))
        self._expected = range(200, 300)
        self._okresponse = self.smtpState_msgSent

    def smtpTransferFailed(self, code: int, resp: bytes) -> None:
        """Take a refusal; who refuses RSET, or answers without being asked, is left."""
        if self._from is None:
            self.abort(f"the server answered {code} where nothing was asked")
        else:
            self.smtpState_msgSent(code, resp)

    def sentMail(self, code: int, resp: Any, *told: Any) -> None:
        """Tell what came of the mail."""
        del told
        text = resp.decode("utf-8", "replace") if isinstance(resp, bytes) else str(resp)
        if text == "No recipients accepted" and self._rcpt_reply:
            text = self._rcpt_reply
        if 200 <= code < 300 and self._is_content_out:
            self._tell(Outcome(Result.ACCEPTED, code, text))
        elif 400 <= code < 600:
            self._tell(Outcome(Result.REFUSED, code, text))
        else:
            self.abort(f"the server answered {code}, which says nothing here")
        if code == _SERVICE_CLOSES:
            self.abort("the server closes (421)")

    def smtpState_toOrData(self, code: int, resp: bytes) -> Any:
        """Keep the words of a refused recipient, which Twisted drops."""
        self._rcpt_reply = resp.decode("utf-8", "replace")
        return super().smtpState_toOrData(code, resp)

    def sendError(self, exc: Any) -> None:
        """Cut the connection: it cannot be used for another mail."""
        code = getattr(exc, "code", -1)
        said = type(exc).__name__.removesuffix("Error")
        self.abort(f"{said} ({code})" if code > 0 else said)

    def connectionLost(self, reason: Any = None) -> None:
        """Tell whoever waits."""
        super().connectionLost(reason)
        self.is_open = False
        self._unbound()
        why = self._why or _reason(reason)
        if not self.ready.called:
            self.ready.errback(SessionError(why))
        elif self._outcome is not None:
            result = Result.UNKNOWN if self._is_content_out else Result.UNSENT
            self._tell(Outcome(result, 0, why))

    def _tell(self, outcome: Outcome) -> None:
        waiting, self._outcome, self._mail = self._outcome, None, None
        self._unbound()
        if waiting is not None:
            # After this reply was dealt with: whoever hears may send the next one at once.
            self._clock.callLater(0, waiting.callback, outcome)

    def _bound(self, seconds: float) -> None:
        self._unbound()
        self._deadline = self._clock.callLater(seconds, self._too_late, seconds)

    def _unbound(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()

    def _too_late(self, seconds: float) -> None:
        self._deadline = None
        self.abort(f"no answer within {seconds:.0f} s")

    _is_resting = False
    _rcpt_reply = ""


def as_content(message: bytes) -> bytes:
    """Return a message as it goes over the wire: lines end with CRLF, a leading dot is doubled, a dot ends it."""
    lines = _LINE_END.sub(b"\r\n", message)
    if not lines.endswith(b"\r\n"):
        lines += b"\r\n"
    return _DOT_LINE.sub(b"..", lines) + b".\r\n"


def _reason(reason: Any) -> str:
    return reason.type.__name__ if isinstance(reason, Failure) else "the connection ended"


@inlineCallbacks
def open_session(reactor: Any, server: SmtpServer) -> Any:
    """
    Connect, and fire with the session when a mail can be sent.

    Fails with a SessionError, or with what Twisted says of a connection that is not made.
    """
    endpoint: Any = HostnameEndpoint(reactor, server.host.encode("ascii"), server.port, timeout=CONNECT_S)
    if server.security == "tls":
        endpoint = wrapClientTLS(server.tls, endpoint)
    starttls = server.tls if server.security == "starttls" else None
    session = SmtpSession(server.identity, reactor, server.login, starttls)
    yield connectProtocol(endpoint, session)
    try:
        found = yield session.ready
    except BaseException:
        # Nobody waits for it any more: a stop, or a refusal.
        session.abort("not needed any more")
        raise
    return found
