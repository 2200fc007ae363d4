"""One SMTP connection against a server that says whatever a test has it say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from esgf_gossip.tracking.outbox import Mail, Outcome, Result
from esgf_gossip.tracking.smtp_session import (
    MAIL_S,
    QUIT_S,
    REPLY_BYTES,
    SETUP_S,
    Login,
    SessionError,
    SmtpSession,
    as_content,
)
from helpers.web import LiveTransport

MAIL = Mail(7, b"d", "news+b7-x@example.org", "jane@site.org", b"Subject: x\r\n\r\n.hidden\r\nbye\r\n")


class Talk:
    """A session and what it says; the test is the server."""

    def __init__(self, login=None, starttls=None):
        self.clock = Clock()
        self.session = SmtpSession("esgf-h.example.org", self.clock, login, starttls)
        self.ready, self.outcomes = [], []
        self.session.ready.addBoth(self.ready.append)
        self.transport = LiveTransport()
        self.transport.protocol = self.session
        self.session.makeConnection(self.transport)

    def hear(self, *replies):
        """Have the server say something; return what it hears then."""
        self.transport.clear()
        for reply in replies:
            if self.transport.connected:
                self.session.dataReceived(reply.encode() + b"\r\n")
        self.clock.advance(0)
        return self.transport.value()

    def greet(self):
        """Set it up."""
        assert self.hear("220 mx ESMTP") == b"EHLO esgf-h.example.org\r\n"
        self.hear("250-mx", "250 8BITMIME")
        assert self.ready == [self.session]
        return self

    def send(self, mail=MAIL):
        """Begin a mail."""
        self.transport.clear()
        self.session.send(mail).addCallback(self.outcomes.append)
        return self.transport.value()


def test_two_mails_go_over_one_connection():
    """Each with its own return path and one recipient; the content has its leading dots doubled."""
    talk = Talk().greet()
    assert talk.send() == b"MAIL FROM:<news+b7-x@example.org>\r\n"
    assert talk.hear("250 ok") == b"RCPT TO:<jane@site.org>\r\n"
    assert talk.hear("250 ok") == b"DATA\r\n"
    assert talk.hear("354 go") == b"Subject: x\r\n\r\n..hidden\r\nbye\r\n.\r\n"
    assert talk.hear("250 queued as 7") == b"RSET\r\n"
    assert talk.outcomes == [Outcome(Result.ACCEPTED, 250, "queued as 7")]
    assert talk.send() == b""
    assert talk.hear("250 reset").startswith(b"MAIL FROM")
    talk.session.abort("enough")
    talk.clock.advance(0)
    assert talk.outcomes[1].result is Result.UNSENT
    assert talk.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("replies", "result", "code"),
    [
        (["550 5.1.1 who?"], Result.REFUSED, 550),
        (["250 ok", "550 5.1.1 who?"], Result.REFUSED, 550),
        (["250 ok", "450 4.2.1 later"], Result.REFUSED, 450),
        (["250 ok", "250 ok", "554 no"], Result.REFUSED, 554),
        (["250 ok", "250 ok", "354 go", "451 4.3.0 later"], Result.REFUSED, 451),
        (["421 4.3.2 closing"], Result.REFUSED, 421),
        # A server that takes a mail before it has the content has not taken it.
        (["250 ok", "250 ok", "250 ok"], Result.UNSENT, 0),
        (["250 ok", "250 ok", "354 go", "354 go on"], Result.UNKNOWN, 0),
        (["250 ok", "250 ok", "354 go", "garbage"], Result.UNKNOWN, 0),
        (["garbage"], Result.UNSENT, 0),
        (["250 ok", "250 ok", "\xff\xfe"], Result.UNSENT, 0),
    ],
)
def test_what_a_server_says_is_one_outcome(replies, result, code):
    """Refused, unsent or unknown, whatever comes; never taken for sent."""
    talk = Talk().greet()
    talk.send()
    talk.hear(*replies)
    assert [(one.result, one.code) for one in talk.outcomes] == [(result, code)]
    assert talk.session.is_open == (result is Result.REFUSED and code != 421)


def test_replies_that_were_not_asked_for_end_the_session():
    """What comes while it rests would be taken for the reply to the next mail."""
    talk = Talk().greet()
    talk.hear("421 4.4.2 idle too long")
    assert not talk.session.is_open
    talk.send()
    assert [one.result for one in talk.outcomes] == [Result.UNSENT]


def test_a_reset_that_is_refused_ends_the_session():
    """No quarrel about RSET."""
    talk = Talk().greet()
    talk.send()
    talk.hear("250 ok", "250 ok", "354 go", "250 ok", "502 what?")
    assert talk.outcomes[0].result is Result.ACCEPTED
    assert not talk.session.is_open


@pytest.mark.parametrize("stage", range(5))
def test_a_server_that_hangs_or_goes_away(stage):
    """At every step: a bound in time, and the right word for what may have happened."""
    for kind in ("hang", "drip", "drop"):
        talk = Talk().greet()
        talk.send()
        talk.hear(*["250 ok", "250 ok", "354 go"][:stage])
        if kind == "drop":
            talk.transport.loseConnection()
        for _ in range(30):
            if talk.transport.connected:
                # A line that never ends its reply is no sign of life.
                talk.clock.advance(MAIL_S / 30)
                if kind == "drip":
                    talk.hear("250-still here")
        talk.clock.advance(1)
        assert [one.result for one in talk.outcomes] == [Result.UNKNOWN if stage >= 3 else Result.UNSENT]
        assert talk.clock.getDelayedCalls() == []


def test_a_set_up_has_its_bound_too():
    """No greeting, half a greeting, a refusal, an endless reply, TLS or login that is not offered."""
    talk = Talk()
    talk.clock.advance(SETUP_S)
    talk.clock.advance(0)
    assert "no answer within 60 s" in str(talk.ready[0].value)
    for replies in (["554 no"], ["220 mx", "500 what?", "500 what?"], ["220 mx", *["250-x" * 200] * 30]):
        talk = Talk()
        talk.hear(*replies)
        assert talk.ready[0].check(SessionError)
        assert talk.clock.getDelayedCalls() == []
    talk = Talk(starttls=object())
    assert b"MAIL" not in talk.hear("220 mx", "250-mx", "250 8BITMIME")
    assert "TLSRequired" in str(talk.ready[0].value)
    talk = Talk(Login("me", "s3cret"))
    said = talk.hear("220 mx", "250-mx", "250 8BITMIME")
    assert b"s3cret" not in said
    assert "AUTHRequired" in str(talk.ready[0].value)
    assert "s3cret" not in repr(Login("me", "s3cret"))


def test_a_login_that_is_declined_is_said_without_the_password():
    """The code is named, the password is not."""
    talk = Talk(Login("me", "s3cret"))
    talk.hear("220 mx", "250-mx", "250 AUTH PLAIN")
    talk.hear("535 5.7.8 no", "535 5.7.8 no")
    assert "(535)" in str(talk.ready[0].value)
    assert "s3cret" not in str(talk.ready[0].value)


def test_it_ends_in_good_order():
    """A mail under way is waited for, a moment; between mails it says QUIT."""
    talk = Talk().greet()
    talk.session.quit()
    assert talk.transport.value().endswith(b"QUIT\r\n")
    talk.hear("221 bye")
    assert not talk.transport.connected
    for replies, result in (([], Result.UNSENT), (["250 ok", "250 ok", "354 go"], Result.UNKNOWN)):
        talk = Talk().greet()
        talk.send()
        talk.hear(*replies)
        talk.session.quit()
        assert talk.outcomes == []
        talk.clock.advance(QUIT_S)
        talk.clock.advance(0)
        assert [one.result for one in talk.outcomes] == [result]
    talk = Talk().greet()
    talk.send()
    talk.session.quit()
    talk.hear("250 ok", "250 ok", "354 go", "250 taken")
    assert [one.result for one in talk.outcomes] == [Result.ACCEPTED]
    talk.session.quit()
    talk.clock.advance(QUIT_S)
    assert talk.clock.getDelayedCalls() == []


def test_a_line_without_end_is_cut():
    """Memory is bounded whatever a server sends."""
    talk = Talk().greet()
    talk.send()
    talk.session.dataReceived(b"2" * (REPLY_BYTES + 10))
    talk.clock.advance(0)
    assert [one.result for one in talk.outcomes] == [Result.UNSENT]


@given(st.lists(st.sampled_from([b".", b"a", b"\r\n", b"\n", b"\r", b"..", b"\r\n."]), max_size=30))
def test_content_reads_back_as_it_was(parts):
    """Whatever its lines begin and end with, a server reads it whole, and finds one end."""
    message = b"".join(parts)
    wire = as_content(message)
    assert wire.endswith(b"\r\n.\r\n")
    lines = wire.split(b"\r\n")
    assert lines[:-2].count(b".") == 0
    assert all(b"\r" not in line and b"\n" not in line for line in lines)
    read = [line.removeprefix(b".") for line in lines[:-2]]
    wanted = message.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    assert read == (wanted[:-1] if wanted[-1] == b"" and len(wanted) > 1 else wanted)
