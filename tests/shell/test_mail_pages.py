"""The links of a mail over HTTP, the control socket and the command line: who may do what, and that looking changes nothing."""

import html
import json

import pytest
from click.testing import CliRunner
from twisted.internet.defer import CancelledError, fail
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.web.resource import Resource
from twisted.web.server import Site

from esgf_gossip.cli import notify
from esgf_gossip.cli.main import program
from esgf_gossip.config import load
from esgf_gossip.tracking.database import TrackingError
from esgf_gossip.tracking.downloads import DownloadsError
from esgf_gossip.tracking.preferences import read_preferences
from esgf_gossip.tracking.projecting import StoppedError
from esgf_gossip.tracking.tokens import Purpose, make_token
from esgf_gossip.web.control_protocol import ControlFactory
from esgf_gossip.web.unsubscribe import FORM_BYTES, mail_pages
from helpers.config import a_node_toml
from helpers.made_up_daemon import MadeUpDaemon, an_answer, config_again, run_against
from helpers.mailing import Office, a_change, a_match, link_of
from helpers.web import parsed
from shell.test_control_protocol import Program, StubCommands


class Browser:
    """Asks the pages of a desk."""

    def __init__(self, desk):
        root = Resource()
        for name, page in mail_pages(desk).items():
            root.putChild(name.encode(), page)
        self.site = Site(root, reactor=Clock())

    def ask(self, path, method="GET", body=b"", **fields):
        """Send one request; return the answer."""
        protocol = self.site.buildProtocol(None)
        transport = StringTransportWithDisconnection()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        kind = "Content-Type: application/x-www-form-urlencoded\r\n" if body else ""
        kind += "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"{method} {path} HTTP/1.1\r\nHost: h\r\n{kind}Content-Length: {len(body)}\r\n\r\n"
        protocol.dataReceived(head.encode() + body)
        return parsed(transport.value(), is_head=method == "HEAD")


@pytest.fixture
def office(tmp_path):
    """Give a mailing that told Jane of one dataset."""
    office = Office(tmp_path)
    change = a_change(reason="<b>why</b>")
    office.take(change, a_match(change))
    office.wait(5)
    yield office
    office.close()


@pytest.fixture
def browser(office):
    """Give a browser of its pages."""
    return Browser(office.desk)


def token(office, purpose):
    """Return the link of a mail as a path."""
    return f"/{purpose}/{link_of(office.server.messages()[0], purpose)}"


def wishes(office):
    """Return what Jane does not want."""
    ((person,),) = office.sql("SELECT key FROM person")
    return office.database.now(read_preferences, person)


def test_one_click_unsubscribes_and_again_does_no_harm(office, browser):
    """Without a cookie, as RFC 8058 has it; nothing more comes."""
    path = token(office, "unsubscribe")
    for _ in range(2):
        answer = browser.ask(path, "POST", b"List-Unsubscribe=One-Click")
        assert answer.status == 200
        assert b"You get no more mails about datasets you fetched" in answer.body
    change = a_change("CMIP6.other.v1")
    office.take(change, a_match(change))
    office.wait(5)
    assert len(office.server.mails) == 1
    assert office.audit("skipped") == ["unsubscribed"]


@pytest.mark.parametrize("purpose", ["unsubscribe", "preferences", "list"])
def test_looking_changes_nothing(office, browser, purpose):
    """GET and HEAD show a page without scripts, that is kept nowhere."""
    before = wishes(office)
    for method in ("GET", "HEAD"):
        answer = browser.ask(token(office, purpose), method)
        assert answer.status == 200
        assert "default-src 'none'" in answer.fields["content-security-policy"]
        assert "script-src" not in answer.fields["content-security-policy"]
        assert (answer.fields["cache-control"], answer.fields["referrer-policy"]) == (
            "no-store",
            "no-referrer",
        )
        assert b"<script" not in answer.body
    assert wishes(office) == before
    assert office.audit("preferences") == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_forged_and_foreign_links_are_refused(office, browser, method):
    """Cut, turned, for another purpose, of another node: 403, and nothing changed."""
    link = link_of(office.server.messages()[0], "unsubscribe")
    other = link_of(office.server.messages()[0], "preferences")
    for purpose, wrong in (
        ("unsubscribe", link[:-4]),
        ("unsubscribe", other),
        ("preferences", link),
        ("preferences", "x" * 40),
        ("list", other),
        ("unsubscribe", make_token(office.values, Purpose.UNSUBSCRIBE, b"p" * 16, "everybody")),
    ):
        answer = browser.ask(f"/{purpose}/{wrong}", method)
        assert answer.status == (405 if (purpose, method) == ("list", "POST") else 403)
    assert wishes(office).unwanted == frozenset()
    for path, status in (("/unsubscribe", 404), ("/unsubscribe/", 404), (f"/unsubscribe/{link}/x", 404)):
        assert browser.ask(path, method).status == status
    assert browser.ask(f"/unsubscribe/{'x' * 700}", method).status == 404
    assert browser.ask(token(office, "preferences"), "DELETE").status == 405


def test_a_browser_is_refused_by_a_page(office, browser, monkeypatch):
    """A person reads why, in the same words and with the same status; a program gets the document."""
    link = token(office, "preferences")
    mine = "text/html,application/xhtml+xml,*/*;q=0.8"
    for path, method, body, status in (
        (link[:-4], "GET", b"", 403),
        (link[:-4], "HEAD", b"", 403),
        ("/unsubscribe/<script>", "GET", b"", 403),
        ("/unsubscribe", "GET", b"", 404),
        ("/unsubscribe/", "GET", b"", 404),
        (f"/list/{'x' * 700}", "GET", b"", 404),
        (f"{link}/x", "GET", b"", 404),
        (link, "DELETE", b"", 405),
        (link, "POST", b"\xff=1", 400),
    ):
        answer, plain = browser.ask(path, method, body, Accept=mine), browser.ask(path, method, body)
        assert (answer.status, plain.status) == (status, status)
        assert answer.fields["content-type"] == "text/html; charset=utf-8"
        assert plain.fields["content-type"] == "application/problem+json"
        assert "default-src 'none'" in answer.fields["content-security-policy"]
        assert answer.fields["cache-control"] == "no-store"
        assert answer.fields.get("allow") == plain.fields.get("allow")
        assert b"<script" not in answer.body
        if method != "HEAD":
            assert json.loads(plain.body)["detail"] in html.unescape(answer.body.decode())
            assert answer.body.startswith(b"<!DOCTYPE html>")
    monkeypatch.setattr(office.database, "run", lambda *_arguments: fail(TrackingError("full")))
    answer = browser.ask(link, Accept=mine)
    assert (answer.status, answer.fields["retry-after"]) == (503, "60")
    assert b"try again later" in answer.body


def test_a_person_chooses_what_to_be_told(office, browser):
    """Kinds, when, datasets to hear of again, nothing at all, and all of it again."""
    path = token(office, "preferences")
    unsubscribe = [
        line.split("/unsubscribe/")[1]
        for line in office.server.messages()[0].get_body(("plain",)).get_content().split()
        if "/unsubscribe/" in line
    ]
    assert browser.ask(f"/unsubscribe/{unsubscribe[0]}", "POST").status == 200
    (scope,) = wishes(office).unwanted
    assert scope.startswith("dataset:CMIP6.CMIP.NCAR")
    assert scope.encode() in browser.ask(path).body
    browser.ask(path, "POST", b"kind=retracted&kind=erratum&kind=evil&immediate=1")
    assert wishes(office).unwanted == {scope, "type:new-version", "type:reinstated"}
    assert wishes(office).is_immediate
    browser.ask(path, "POST", f"kind=retracted&back={scope}&back=all&back=type:erratum".encode())
    assert wishes(office).unwanted == {"type:new-version", "type:reinstated", "type:erratum"}
    assert not wishes(office).is_immediate
    assert b"You get no mails now" in browser.ask(path, "POST", b"nothing=1").body
    assert wishes(office).is_silent
    answer = browser.ask(path, "POST", b"kind=retracted&kind=new-version&kind=erratum&kind=reinstated")
    assert b"Saved" in answer.body
    assert wishes(office).unwanted == frozenset()
    for wrong in (b"\xff\xfe=1", b"a=b&" * 5000, b"x" * (FORM_BYTES + 1)):
        assert browser.ask(path, "POST", wrong).status == 400
    assert wishes(office).unwanted == frozenset()


def test_the_full_list_is_a_page_of_its_own(office, browser):
    """It names what the mail was about, inert; a page that is not there, or what is forgotten, is said."""
    path = token(office, "list")
    body = browser.ask(path).body
    assert b"CMIP6.CMIP.NCAR.CESM2.historical" in body
    assert b"&lt;b&gt;why&lt;/b&gt;" in body
    for number in ("2", "0", "-1", "x", "9" * 30):
        assert browser.ask(f"{path}?page={number}").status == 200
    assert b"kept no longer" in browser.ask(f"{path}?page=2").body
    office.result(office.desk.erase("jane@site.org"))
    assert b"kept no longer" in browser.ask(path).body


def test_a_disk_that_says_no_is_said_without_the_link(office, browser, monkeypatch, everything_said):
    """503; the log names neither the link nor the person."""
    path = token(office, "unsubscribe")
    monkeypatch.setattr(
        office.database, "run", lambda *_arguments: fail(TrackingError("/x/tracking.db: full"))
    )
    answer = browser.ask(path, "POST")
    assert (answer.status, answer.fields["retry-after"]) == (503, "60")
    assert path.rpartition("/")[2] not in everything_said()


class TestControl:
    """The control socket."""

    @pytest.fixture
    def ask(self, office):
        """Ask the control socket of a daemon that mails."""
        commands = StubCommands()
        commands.notifications = office.desk
        program = Program(ControlFactory(commands, Clock()))
        return lambda command, **fields: program.ask(command, **fields)[0]

    def test_all_of_it_is_asked_by_the_control_socket(self, office, ask):
        """Status, list, preview, hold, release, log, export, erase."""
        assert ask("notify-status")["data"]["sent"] in (0, 1)
        (change,) = ask("notify-list")["data"]
        assert (change["persons"], change["recipients"], change["state"]) == ({"sent": 1}, 1, "open")
        key = change["change"]
        assert "made-up" in ask("notify-preview", change=key)["data"]["text"]
        assert ask("notify-hold", change=key, who="ann")["data"]["state"] == "held"
        refused = ask("notify-release", change=key, who="bob")
        assert refused["error"] == "this releases mail to many people: send confirm = true with it"
        assert "ann held it" in ask("notify-release", change=key, who="ann", confirm=True)["error"]
        assert ask("notify-release", change=key, who="bob", confirm=True)["data"]["state"] == "released"
        steps = [line["step"] for line in ask("notify-log", change=key)["data"]]
        assert steps == ["matched", "notice", "queued", "attempt", "sent", "held", "released"]
        assert ask("notify-log", person="jane@site.org")["data"][-1]["code"] == 250
        assert ask("notify-log", person="https://x.org/openid/nobody")["data"] == []
        assert ask("notify-export", person="jane@site.org")["data"]["address"] == "jane@site.org"
        assert ask("notify-erase", person="jane@site.org", confirm=True)["data"]["mails"] == 1

    @pytest.mark.parametrize(
        ("command", "fields", "words", "is_missing"),
        [
            ("notify-hold", {"change": "00000000", "who": "ann"}, "no users were matched", True),
            ("notify-hold", {"change": "xyz", "who": "ann"}, "8 hex digits", False),
            ("notify-hold", {"change": 5, "who": "ann"}, "change is a text", False),
            ("notify-list", {"limit": 0}, "limit is a number", False),
            ("notify-export", {}, "person is a text", False),
            ("notify-erase", {"person": "x" * 501, "confirm": True}, "at most 500", False),
        ],
    )
    def test_wrong_questions_are_one_line(self, ask, command, fields, words, is_missing):
        """What is wrong and what would be right."""
        answer = ask(command, **fields)
        assert words in answer["error"]
        assert answer.get("missing", False) is is_missing

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (DownloadsError("downloads.db: the disk is full"), "the disk is full"),
            (StoppedError(), "being stopped; ask again"),
            (CancelledError(), "being stopped; ask again"),
        ],
    )
    def test_what_fails_below_is_one_line(self, office, ask, monkeypatch, error, words):
        """The downloads cannot be read, or the daemon ends meanwhile."""
        monkeypatch.setattr(office.desk, "erase", lambda _who: fail(error))
        assert words in ask("notify-erase", person="jane@site.org", confirm=True)["error"]

    def test_a_node_without_mail_says_so(self):
        """And how it is switched on."""
        answer = Program(ControlFactory(StubCommands(), Clock())).ask("notify-status")[0]
        assert "set tracking.smtp and tracking.sender" in answer["error"]


class TestCommands:
    """The command line."""

    @pytest.fixture
    def config(self, tmp_path):
        """Give the path of a node.toml whose daemon may be made up."""
        return a_node_toml(tmp_path)

    def test_release_asks_and_names_who(self, config, monkeypatch):
        """The preview is shown, the answer is needed, and root is the one before sudo."""
        seen = an_answer({"subject": "Retracted: x", "recipients": 2300})
        done = an_answer({"change_key": "ab" * 32, "state": "held", "asked_by": "ann"})
        monkeypatch.setattr(notify.os, "geteuid", lambda: 0)
        monkeypatch.setenv("SUDO_USER", "ann")
        with MadeUpDaemon(load(config).control_socket, [seen, done]) as daemon:
            result = CliRunner().invoke(
                program, ["notify", "release", "abababab", "--yes", "--config", str(config)]
            )
        asked = daemon.asked
        assert result.exit_code == 0
        assert asked[1] == {"command": "notify-release", "change": "abababab", "who": "ann", "confirm": True}
        assert (
            result.stdout
            == "abababababab held: ann asked for its release; another person must release it now\n"
        )
        result, asked = run_against(config_again(config), seen, "notify", "release", "abababab")
        assert (result.exit_code, len(asked)) == (130, 1)
        assert "Retracted: x - 2300 users" in result.stderr
        assert "there is no terminal to ask on; add --yes if it is meant" in result.stderr

    def test_tables_and_texts(self, config):
        """Lists, the log and a preview are printed, whatever is in them."""
        change = {
            "change": "ab" * 32,
            "kind": "retracted",
            "dataset": "CMIP6.\x1b[2J",
            "occurred_ms": 1_700_000_000_000,
            "state": "held",
            "recipients": 3,
            "persons": {"sent": 2},
        }
        result, _ = run_against(config, an_answer([change]), "notify", "list")
        assert "abababababab" in result.stdout
        assert "\x1b" not in result.stdout
        line = {
            "at_ms": 1_700_000_000_000,
            "step": "sent",
            "change": None,
            "person": "cd" * 16,
            "mail": 7,
            "code": 250,
        }
        result, _ = run_against(
            config_again(config), an_answer([line]), "notify", "log", "--person", "jane@site.org"
        )
        assert "250" in result.stdout
        text = {
            "change": "ab",
            "state": "open",
            "recipients": 1,
            "subject": "S",
            "text": "a\x1bb\nc",
            "html": "<p>",
        }
        result, _ = run_against(config_again(config), an_answer(text), "notify", "preview", "abababab")
        assert "a?b\nc\n" in result.stdout
        result, _ = run_against(config_again(config), an_answer({"fault": "no server"}), "notify", "status")
        assert result.exit_code == 10

    def test_erase_and_export(self, config):
        """An erasure is asked about; an export is JSON."""
        result = CliRunner().invoke(program, ["notify", "erase", "jane@site.org", "--config", str(config)])
        assert result.exit_code == 130
        result, asked = run_against(
            config, an_answer({"mails": 1}), "notify", "erase", "jane@site.org", "--yes"
        )
        assert asked == [{"command": "notify-erase", "person": "jane@site.org", "confirm": True}]
        result, _ = run_against(
            config_again(config),
            an_answer({"mails": 0, "note": "no OpenID is known"}),
            "notify",
            "erase",
            "jane@site.org",
            "--yes",
        )
        assert result.stderr == "esgf-gossip: no OpenID is known\n"
        assert "note" not in result.stdout
        result, _ = run_against(
            config_again(config), an_answer({"address": "x"}), "notify", "export", "jane@site.org"
        )
        assert json.loads(result.stdout) == {"address": "x"}

    @pytest.mark.parametrize("who", ["jane@site.org", "https://idp.example.org/openid/jane"])
    def test_an_export_of_nobody_says_so(self, config, who):
        """As a preview to nobody does; a wish for silence is something that is known."""
        told = {"openids": [who] if "://" in who else [], "matches": [], "address": "", "mails": []}
        told |= {"preferences": {"unwanted": [], "retractions_at_once": False}, "audit": []}
        told["downloads"] = [{"openid": who, "downloads": [], "unresolved": []}] if "://" in who else []
        result, _ = run_against(config, an_answer(told), "notify", "export", who)
        assert (result.exit_code, result.stdout) == (5, "")
        assert result.stderr == "esgf-gossip: error: nothing is known here of that address or OpenID\n"
        told["preferences"]["unwanted"] = ["all"]
        result, _ = run_against(config_again(config), an_answer(told), "notify", "export", who)
        assert (result.exit_code, json.loads(result.stdout)) == (0, told)
