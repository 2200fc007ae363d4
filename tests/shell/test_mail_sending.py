"""A real process mails to a real SMTP server: killed, refused, dropped, with TLS and login, within its rates."""

import ssl
import subprocess
import threading

import pytest

from helpers.daemons import eventually
from helpers.mail_server import MailServer, Worker, drop, login_of
from helpers.mail_worker import now_ms, take_all
from helpers.mailing import a_change, a_match


def some_users(count):
    """Return one change and the matches of so many users."""
    change = a_change(occurred_ms=now_ms())
    return [(change, [a_match(change, f"u{number}") for number in range(count)], "a")]


@pytest.fixture
def mailing(tmp_path):
    """Make servers and workers; end them all."""
    made = []

    def make(count, log=None, settings=None, options=None, **server_options):
        server = MailServer(log, **server_options).start()
        worker = Worker(tmp_path / f"node{len(made)}", server, settings or {}, **(options or {}))
        made.append((server, worker))
        take_all(worker.folder, worker.options, some_users(count))
        return server, worker

    yield make
    for server, worker in made:
        worker.kill()
        server.stop()


def test_a_kill_between_the_answer_and_the_disk(mailing, tmp_path):
    """With the mail server's log nothing comes twice and nothing is lost; connections are used again."""
    server, worker = mailing(60, tmp_path / "mail.log")
    kills = {10, 30}
    killed = threading.Event()

    def on_taken(_taken):
        if len(server.taken) in kills:
            kills.discard(len(server.taken))
            worker.process.kill()
            killed.set()

    server.on_taken = on_taken
    for _ in range(2):
        worker.start()
        assert killed.wait(30)
        killed.clear()
        worker.kill()
    assert server.sessions == 2
    worker.start()
    eventually(lambda: worker.states() == {"sent": 60}, "all are sent")
    assert len(server.taken) == 60
    assert server.duplicates() == (0, True)
    assert server.sessions == 3
    eventually(lambda: worker.fault() == "", "nothing is wrong")
    worker.stop()


def test_what_is_dropped_after_its_content_comes_again_with_the_same_name(mailing):
    """Without a log a mail that may have arrived is sent once more; one that was refused for good is not."""
    server, worker = mailing(3, settings={"domain_rate_per_s": 5})
    server.reply = lambda recipient: (
        (drop if server.tried[recipient] == 1 and recipient.startswith("u1@") else None)
        or ("550 5.1.1 no" if recipient.startswith("u2@") else None)
    )
    worker.start()
    # Before its first try a mail is queued too.
    eventually(lambda: len(server.tried) == 3, "each was tried")
    eventually(lambda: worker.states() == {"sent": 1, "queued": 1, "failed": 1}, "each has its outcome")
    assert sorted(server.tried.values()) == [1, 1, 1]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")
@pytest.mark.parametrize(
    ("security", "wrong"), [("starttls", {"name": "other.example.org"}), ("tls", {"login": ["me", "wrong"]})]
)
def test_tls_and_login(mailing, tmp_path, security, wrong):
    """TLS is demanded and the name judged; the password goes only to the right server, and a wrong one is said."""
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=mx -addext subjectAltName=DNS:mx.example.org"
    key, certificate = tmp_path / "mx.key", tmp_path / "mx.pem"
    subprocess.run(
        ["openssl", *words.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    right = {
        "security": security,
        "roots": str(certificate),
        "name": "mx.example.org",
        "login": ["me", "s3cret"],
    }
    server, worker = mailing(
        2,
        options={**right, **wrong},
        tls_context=context,
        is_tls_from_the_start=security == "tls",
        require_starttls=security == "starttls",
        auth_required=True,
        auth_require_tls=security == "starttls",
        authenticator=login_of("me", "s3cret"),
    )
    worker.start()
    eventually(lambda: "takes no mail" in worker.fault(), "it is refused")
    assert not {"wrong", "s3cret"} & set(worker.fault().split())
    worker.kill()
    assert server.taken == []
    worker.options |= right
    worker.start()
    eventually(lambda: worker.states() == {"sent": 2}, "both are sent")


def test_rates_hold_at_the_server(mailing):
    """In no second more than the rates, in all and for a domain, over a restart too."""
    server, worker = mailing(24, settings={"rate_per_s": 8, "domain_rate_per_s": 1})
    worker.start()
    eventually(lambda: len(server.taken) >= 8, "some are sent")
    worker.kill()
    worker.start()
    eventually(lambda: worker.states().get("sent", 0) >= 23, "nearly all are sent")
    assert server.most_in_a_second() <= 8
    assert server.most_in_a_second(lambda taken: taken.recipient.rpartition("@")[2]) <= 1
