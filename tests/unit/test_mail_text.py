"""What a mail says, and that hostile words stay words; its signature by a verifier of another house."""

import base64
import re
import subprocess
from email import message_from_bytes, policy
from html.parser import HTMLParser

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.tracking.events import file_key
from esgf_gossip.tracking.identity import parse_dataset
from esgf_gossip.tracking.mail_items import Item, inert, make_content, safe_link
from esgf_gossip.tracking.mail_signing import SigningError, make_signer
from esgf_gossip.tracking.mail_text import MAIL_BYTES, MailText, subject_of
from esgf_gossip.tracking.matches import FetchedFile
from esgf_gossip.trust.sealed_values import SealedValues
from helpers.mailing import NAME, NODE, NOW_MS, URL, a_change, a_match
from helpers.programs import needs

PERSON = b"p" * 16
HELD = parse_dataset(NAME)


@pytest.fixture
def text(tmp_path):
    """Give what renders mails."""
    return MailText(SealedValues(tmp_path / "key"), NODE, "news@example.org", URL)


def rendered(text, *items, now=()):
    """Render a mail, with the versions to be taken now by those held; return its bytes and the mail as it is read."""
    message = text.render(items, dict(now).get, "jane@site.org", PERSON, 7, "<1@x>", NOW_MS)
    return message, message_from_bytes(message, policy=policy.default)


def replaced(by="20200101", **fields):
    """Make the change of a new version; who holds HELD is told of it."""
    new = attrs.evolve(HELD, version=by)
    return a_change(str(new), "new-version", successor=new, supersedes=(HELD.version,), **fields)


def bodies(message):
    """Return both parts."""
    return [message.get_body((kind,)).get_content() for kind in ("plain", "html")]


def test_it_says_which_of_your_files_and_what_now(text):
    """Files with date and node, unchanged ones marked, the successor, reason and errata with links, how to get out."""
    change = replaced(reason="wrong units", unchanged=frozenset([file_key("same.nc")]))
    match = a_match(
        change, files=["new.nc", "same.nc"], same=["same.nc"], fetched_ms=1_700_000_000_000, dataset=HELD
    )
    issue = ("Sign of fluxes", "high", "https://errata.example.org/1")
    _, message = rendered(text, Item(change, match, (issue,)), now={HELD: change.successor})
    assert message["Subject"] == f"New version 20200101 of {HELD.master_id}"
    for body in bodies(message):
        said = re.sub(r"<[^>]+>", "", body)
        assert re.search(rf"You hold: {HELD}\s+replaced by a new version on 2026-", said)
        assert f"Take now: {change.successor}" in said
        assert "fetched 2023-11-14 from dn1.example.org" in body
        assert re.search(r"same\.nc(<br>|\s+)fetched [^\n]*unchanged", body, re.IGNORECASE)
        assert not re.search(r"new\.nc(<br>|\s+)fetched [^\n]*unchanged", body, re.IGNORECASE)
        assert "wrong units" in body
        assert "Sign of fluxes (severity: high)" in body
        assert "https://errata.example.org/1" in body
        assert NODE in body
        assert f"{URL}/preferences/" in body
        assert f"{URL}/unsubscribe/" in body
        assert "because you fetched these files" in body


NEWER, NEWEST = (attrs.evolve(HELD, version=version) for version in ("20200101", "20210101"))
NONE_KNOWN = "No version that replaces it is known"


@pytest.mark.parametrize(
    ("change", "now", "says", "silent"),
    [
        (a_change(NAME), NEWER, ("Do not use it any more.", f"Take now: {NEWER}"), ("known",)),
        (a_change(NAME), None, (f"Do not use it any more. {NONE_KNOWN}",), ("Take now",)),
        (replaced(), NEWEST, (f"Take now: {NEWEST}",), (str(NEWER), "known")),
        (
            replaced(),
            None,
            ("The new version is not valid any more; no other is known.",),
            ("Take now", str(NEWER)),
        ),
        (a_change(NAME, "reinstated"), NEWER, ("valid again",), ("Take now", "known")),
        (a_change(NAME, "erratum"), NEWER, ("an erratum",), ("Take now", "known")),
    ],
)
def test_it_names_the_version_to_be_taken_now(text, change, now, says, silent):
    """As things stand when it is made, whatever the change itself named; the subject says what happened."""
    _, message = rendered(text, Item(change, a_match(change, dataset=HELD)), now={HELD: now})
    for body in bodies(message):
        said = re.sub(r"<title>[^\n]*|<[^>]+>", "", body)
        assert [one for one in says if one not in said] == []
        assert [one for one in silent if one in said] == []
    if change.successor is not None:
        assert message["Subject"] == f"New version {NEWER.version} of {HELD.master_id}"


def test_a_file_is_unchanged_only_in_the_version_it_was_compared_with(text):
    """Where another is to be taken by now, nobody has looked whether its files are the same."""
    change = replaced(unchanged=frozenset([file_key("same.nc")]))
    item = Item(change, a_match(change, files=["same.nc", "new.nc"], same=["same.nc"], dataset=HELD))
    for now, is_said in ((NEWER, True), (NEWEST, False), (None, False)):
        for body in bodies(rendered(text, item, now={HELD: now})[1]):
            assert ("your copy is still good" in body) is is_said
    # Of a version before the one that was compared the same name says nothing.
    older = Item(change, a_match(change, files=["same.nc"], dataset=HELD))
    assert not any(
        "your copy is still good" in body for body in bodies(rendered(text, older, now={HELD: NEWER})[1])
    )


def test_where_nobody_says_which_version_is_held_the_new_one_is_not_left_out():
    """A match may name no version, and a new one what it replaces neither: any older one is asked for."""
    change = replaced()
    asked = []
    (group,) = make_content(
        [Item(change, a_match(change))], lambda one: asked.append(one) or NEWEST, 9, 9
    ).groups
    assert group.entries[0].successor == str(NEWEST)
    assert asked == [attrs.evolve(HELD, version="0")]


def test_only_what_is_shown_is_asked_for():
    """One question for each dataset with an entry, however many the mail is about."""
    items = [
        Item(one, a_match(one)) for one in (a_change(f"CMIP6.a.b.c.e{n % 7}.n{n}.v1") for n in range(3000))
    ]
    asked = []
    content = make_content(items, asked.append, 100, 20)
    shown = [entry.dataset for group in content.groups for entry in group.entries]
    assert len(shown) == 100
    assert sorted(map(str, asked)) == sorted(shown)


def test_the_subject_says_what_is_new_and_counts_a_dataset_once():
    """One dataset is named however much happened to it; several are counted, each once, the worst first."""
    gone, newer, newest = a_change(NAME), replaced(), replaced("20210101", occurred_ms=NOW_MS + 1)
    other = a_change("CMIP6.other.v1", "erratum", title="Wrong units")
    held = [Item(one, a_match(one, dataset=HELD)) for one in (newer, newest, gone)]
    master = HELD.master_id
    assert subject_of([held[2]]) == f"Retracted: {HELD}"
    assert subject_of(held[:1]) == f"New version 20200101 of {master}"
    assert subject_of(held) == f"Retracted, new version 20210101, new version 20200101: {master}"
    both = "2 datasets you fetched: 1 retracted, 1 with an erratum, 1 with a new version"
    assert subject_of([*held, Item(other, a_match(other))]) == both
    long = a_change(f"CMIP6.{'x' * 200}.v2", "new-version", successor=parse_dataset(f"CMIP6.{'x' * 200}.v2"))
    assert subject_of([Item(long, a_match(long))]).startswith("New version 2 of CMIP6.xxx")


EVIL = "$1 \\1 {{ 7*7 }} %s <script>alert(1)</script>\r\nBcc: evil@x.org\r\n\r\n.\r\n\u202egnp.exe\u2066\u200b\x00\x1b[2J 山é"


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.links = set(), []

    def handle_starttag(self, tag, attributes):
        self.seen.add(tag)
        self.links += [value for name, value in attributes if name == "href"]


@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", 'https://x.org/"onclick="x', "https://x.org/\r\nx", EVIL]
)
def test_hostile_words_stay_words(text, link):
    """In headers and both bodies: no line, no tag, no direction mark of theirs; letters of all scripts stay."""
    change = a_change(kind="erratum", title=EVIL, reason=EVIL, severity=EVIL, link=link)
    file = FetchedFile(change.datasets[0], EVIL, EVIL, NOW_MS)
    match = a_match(change, files=[])
    _, message = rendered(
        text,
        Item(
            change,
            attrs.evolve(match, files=(file,)),
            ((EVIL, EVIL, link),),
        ),
    )
    assert message["Bcc"] is None
    assert message.get_all("Subject")[0].startswith("Erratum: CMIP6")
    assert "山é" in inert(EVIL)
    plain, html = bodies(message)
    for body in (plain, html, message["Subject"]):
        assert not set("\u202e\u2066\u200b\x00\x1b") & set(body)
        assert "evil@x.org\n" not in body
    assert "{{ 7*7 }}" in plain
    assert "山é" in plain
    tags = _Tags()
    tags.feed(html)
    assert tags.seen <= {"html", "head", "meta", "title", "body", "p", "h2", "ul", "li", "b", "br", "a", "hr"}
    assert all(one.startswith(URL) for one in tags.links)


@pytest.mark.parametrize(
    ("link", "is_good"),
    [
        ("https://errata.es-doc.org/static/view.html?uid=1", True),
        ("http://[::1]:80/", True),
        ("ftp://x", False),
        ("", False),
    ],
)
def test_only_links_of_the_web_are_links(link, is_good):
    """Everything else is left out."""
    assert bool(safe_link(link)) is is_good


@given(st.text(max_size=2000))
def test_any_text_becomes_one_bounded_line(words):
    """Without anything that a reader's program could obey."""
    line = inert(words)
    assert len(line) <= 300
    assert line.isprintable()


@settings(max_examples=6)
@given(count=st.integers(1, 200), files=st.integers(0, 20), kind=st.sampled_from(["retracted", "erratum"]))
def test_no_mail_is_larger_than_its_bound(tmp_path_factory, count, files, kind):
    """Whatever it is about, with the longest names there are; and nothing is left out without being counted."""
    text = MailText(SealedValues(tmp_path_factory.mktemp("k") / "key"), NODE, "news@example.org", URL)
    name = "x" * 200 + ".nc"
    items = []
    for number in range(count):
        change = a_change(
            f"CMIP6.a.b.c.e{number % 90}{'y' * 180}.n{number}.v1",
            kind,
            reason="ü" * 300,
            title="é" * 300,
        )
        items.append(
            Item(change, a_match(change, files=[name] * min(files, 1) + [f"{n}{name}" for n in range(files)]))
        )
    message, read = rendered(text, *items)
    assert len(message) <= MAIL_BYTES
    assert max(len(line) for line in message.split(b"\r\n")) <= 998
    assert b"\n" not in message.replace(b"\r\n", b"")
    for entries, most in ((100, 20), (5, 1), (0, 0)):
        content = make_content(items, lambda _held: None, entries, most)
        shown = sum(len(group.entries) + group.more for group in content.groups) + content.more
        assert shown == content.dataset_count == count
    assert read["Subject"] == subject_of(items)


_VERIFY = """
use Mail::DKIM::Verifier; use Mail::DKIM::PublicKey; use Mail::DKIM::DNS;
package RR; sub type { 'TXT' } sub txtdata { return ($main::TXT) }
package main;
our $TXT = shift @ARGV;
{ no warnings; *Mail::DKIM::DNS::query_async = sub { my ($h,$t,%p) = @_;
  print "asked: $h\\n"; my $r = $p{Callbacks}{Success}->(bless {}, 'RR'); sub { $r } }; }
my $v = Mail::DKIM::Verifier->new(); local $/; $v->PRINT(<STDIN>); $v->CLOSE();
print $v->result, "\\n", join(":", $v->signature->headerlist), "\\n";
"""


@needs("perl", "-MMail::DKIM", "-e1", package="libmail-dkim-perl")
def test_the_signature_holds_for_a_verifier_of_another_house(tmp_path):
    """Mail::DKIM finds it good, the unsubscribe fields among what is signed; one changed byte breaks it."""
    key = tmp_path / "dkim.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    public = subprocess.run(
        ["openssl", "rsa", "-in", key, "-pubout", "-outform", "DER"], check=True, capture_output=True
    ).stdout
    record = f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"
    signer = make_signer(key, "sel1", "example.org")
    text = MailText(SealedValues(tmp_path / "key"), NODE, "news@example.org", URL, signer)
    change = a_change(reason="é" * 50)
    message, _ = rendered(text, Item(change, a_match(change)))

    def verified(content):
        done = subprocess.run(["perl", "-e", _VERIFY, record], input=content, capture_output=True, check=True)
        return done.stdout.decode().splitlines()

    asked, result, signed = verified(message)
    assert (asked, result) == ("asked: sel1._domainkey.example.org", "pass")
    assert {"list-unsubscribe", "list-unsubscribe-post", "from", "subject"} <= set(signed.lower().split(":"))
    assert verified(message.replace(b"One-Click", b"One-Clock"))[1] == "fail"
    assert verified(message.replace(b"unsubscribe/", b"unsubscribe/x"))[1] == "fail"


@pytest.mark.parametrize("content", [b"no key", b""])
def test_a_wrong_key_is_one_line(tmp_path, content):
    """At the start, not at the first mail."""
    key = tmp_path / "dkim.key"
    with pytest.raises(SigningError, match="No such file"):
        make_signer(key, "s", "example.org")
    key.write_bytes(content)
    with pytest.raises(SigningError, match="no RSA key"):
        make_signer(key, "s", "example.org")
