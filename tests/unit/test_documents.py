"""The documents cannot rot: links resolve, constants, kinds and examples of docs/protocol.md are those of the code."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgpack
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from esgf_gossip.core import codec, limits, merkle, messages, overlay
from esgf_gossip.core.codec import decode
from esgf_gossip.core.digests import decode_digest, encode_digest, read_head
from esgf_gossip.core.framing import FrameBuffer
from esgf_gossip.core.messages import Farewell, Unknown
from esgf_gossip.core.reachability import decode_reachability, encode_reachability
from esgf_gossip.trust.signing import DIGEST_CONTEXT
from esgf_gossip.trust.tls import ALPN_GOSSIP

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = ROOT / "docs" / "protocol.md"
DOCUMENTS = sorted(
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        ROOT / "certs" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    )
    if path.exists()
)
EXAMPLE = re.compile(r"^```hex (\w+)\n(.*?)\n```\n\n```text\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
# Where somebody's checkout or home lies is of no use to a reader, and says who wrote it.
PRIVATE_PATH = re.compile(r"(?<![\w.])(/home/\w|/work/|/Users/|/root/|[A-Z]:\\)|file://|\.\./shared|/shared/")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def _anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _section(heading: str) -> str:
    """Return the text of a section of the protocol, up to the next heading."""
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", PROTOCOL.read_text(), re.DOTALL | re.MULTILINE
    )
    assert found is not None, f"no section {heading}"
    return found.group(1)


def _rows(text: str) -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows if set("".join(row)) - set("-: ")]


def _examples(kind: str) -> list[tuple[bytes, str]]:
    return [
        (bytes.fromhex("".join(data.split())), text)
        for found, data, text in EXAMPLE.findall(PROTOCOL.read_text())
        if found == kind
    ]


def _shown(value: Any) -> str:
    match value:
        case None:
            return "nil"
        case bool():
            return str(value).lower()
        case int():
            return str(int(value))
        case str():
            return json.dumps(value)
        case bytes() if len(value) > 32:
            return f"{len(value)} bytes with SHA-256 h'{hashlib.sha256(value).hexdigest()}'"
        case bytes():
            return f"h'{value.hex()}'"
        case tuple():
            return "[" + ", ".join(map(_shown, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{_shown(key)}: {_shown(item)}" for key, item in value.items()) + "}"
    return f"{type(value).__name__}({', '.join(f'{name}={text}' for name, text in _fields(value))})"


def _fields(value: Any) -> Iterator[tuple[str, str]]:
    for field in attrs.fields(type(value)):
        yield field.name, _shown(getattr(value, field.name))


def _reading(value: Any) -> str:
    return "\n".join([type(value).__name__, *(f"  {name}: {text}" for name, text in _fields(value))])


# ----------------------------------------------------------------- all documents


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_every_relative_link_resolves(path):
    """A link leads to a file of this repository, and to a heading of it where it names one."""
    for target in re.findall(r"\]\(<?([^)>\s]+)>?(?: \"[^\"]*\")?\)", _without_code(path.read_text())):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        file_name, _, anchor = target.partition("#")
        linked = (path.parent / file_name).resolve() if file_name else path
        assert linked.exists(), f"{_name(path)}: {target}"
        assert linked.is_relative_to(ROOT), f"{_name(path)}: {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in _anchors(linked), f"{_name(path)}: {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_no_document_names_a_path_of_a_developers_machine(path):
    """Everything a document needs is in the repository."""
    assert PRIVATE_PATH.findall(path.read_text()) == []


def test_every_decision_stands_in_the_index_once():
    """The index of decisions lists all records, in order, and nothing else."""
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"^- \[(\d{4}) [^]]+\]\(([^)]+)\)", (folder / "README.md").read_text(), re.MULTILINE)
    assert [name for _, name in listed] == sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert all(name.startswith(number) for number, name in listed)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")), ids=lambda path: path.name
)
def test_a_decision_has_its_four_parts(path):
    """A record says why, what, what else, and what follows."""
    headings = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
    assert headings == ["Context", "Decision", "Rejected", "Consequences"]


def test_what_the_code_cites_of_protocol_and_decisions_exists():
    """A docstring that names a record or a section of the protocol leads to one."""
    sections = {
        heading.split(" ", 1)[-1] for heading in re.findall(r"^## (.+)$", PROTOCOL.read_text(), re.MULTILINE)
    }
    numbers = {path.name[:4] for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")}
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "twisted").rglob("*.py")]:
        text = path.read_text()
        for cited in re.findall(r"docs/adr/(\d{4}[\w-]*(?:\.md)?)", text):
            assert (ROOT / "docs" / "adr" / cited).exists() or cited in numbers, f"{_name(path)}: {cited}"
        for cited in re.findall(r'docs/protocol\.md, "([^"]+)"', text):
            assert cited in sections, f"{_name(path)}: {cited}"


# ----------------------------------------------------------------- the protocol


def _constants() -> dict[str, str]:
    header, *rows = _rows(_section("18. Constants"))
    assert header[:2] == ["constant", "value"]
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row[1] for row in rows}


@pytest.mark.parametrize(("name", "value"), _constants().items(), ids=str)
def test_a_constant_has_the_value_of_the_code(name, value):
    """The table of constants is the code's."""
    module, _, constant = name.rpartition(".")
    code = getattr(importlib.import_module(f"esgf_gossip.core.{module}"), constant)
    assert ast.literal_eval(value) == code


def test_every_limit_is_in_the_table():
    """Whoever writes a second implementation finds every bound."""
    named = {f"limits.{name}" for name in vars(limits) if name.isupper()}
    assert named <= _constants().keys()


def test_every_constant_the_text_names_is_in_the_table():
    """The text names constants by where they are, and the table has their values."""
    named = set(re.findall(r"`([a-z_]+\.[A-Z][A-Z_]+)`", PROTOCOL.read_text()))
    assert named == set(_constants())


def _kinds() -> dict[int, str]:
    found = re.findall(r"^### (\d+) (\w+)$", PROTOCOL.read_text(), re.MULTILINE)
    return {int(number): name for number, name in found}


def test_every_kind_of_message_has_its_section():
    """Numbers and names of the sections are those that the codec reads and writes."""
    assert list(_kinds()) == sorted(codec._READERS)
    assert sorted(_kinds().values()) == sorted(kind.__name__ for kind in codec._WRITERS)


@pytest.mark.parametrize(("number", "name"), _kinds().items(), ids=str)
def test_a_kind_lists_its_fields_in_order(number, name):
    """The table of a kind names the fields of the message, from the first, none left out."""
    fields = [row for row in _rows(_section(f"{number} {name}")) if row[0].isdigit() and row[1].islower()]
    assert [row[1] for row in fields] == [field.name for field in attrs.fields(getattr(messages, name))]
    assert [int(row[0]) for row in fields] == list(range(1, len(fields) + 1))
    assert codec._READERS[number][0] == len(fields)


def test_every_kind_has_an_example():
    """No kind is described in words alone, and the number on the wire is that of the section."""
    seen = {(msgpack.unpackb(data)[0], type(decode(data)).__name__) for data, _ in _examples("message")}
    assert {kind for kind in seen if kind[1] != Unknown.__name__} == set(_kinds().items())


@pytest.mark.parametrize(("data", "text"), _examples("message"), ids=lambda value: str(value)[:24])
def test_a_message_reads_as_the_text_says(data, text):
    """The real codec reads the hex as it is shown, and writes it back to the byte."""
    message = decode(data)
    assert _reading(message) == text
    if not isinstance(message, Unknown):
        assert codec.encode(message) == data


def test_the_statement_of_an_observer_reads_as_the_text_says():
    """The body of the example is what an observer publishes."""
    ((data, text),) = _examples("reachability")
    assert _reading(decode_reachability(data)) == text
    assert encode_reachability(decode_reachability(data)) == data


def test_no_example_is_left_out():
    """Every block of hex has its reading under it, so that all of them are checked."""
    kinds = re.findall(r"^```hex (.*)$", PROTOCOL.read_text(), re.MULTILINE)
    assert kinds == [kind for kind, _, _ in EXAMPLE.findall(PROTOCOL.read_text())]


def test_the_frame_holds_the_message_shown():
    """A frame is the length and the payload."""
    ((data, text),) = _examples("frame")
    (payload,) = FrameBuffer().feed(data)
    assert _reading(decode(payload)) == text


def test_the_digest_reads_as_the_text_says():
    """The digest of the example is a digest, and its bytes are what this codec writes."""
    ((data, text),) = _examples("digest")
    assert _reading(decode_digest(data)) == text
    assert encode_digest(decode_digest(data)) == data


def test_the_digest_table_has_every_field_on_the_wire():
    """Twelve fields in their places; the last holds what the code calls leaving."""
    fields = [row for row in _rows(_section("6. The digest")) if row[0].isdigit()]
    ((data, _),) = _examples("digest")
    assert len(fields) == len(msgpack.unpackb(data))
    assert [row[1] for row in fields][1:-1] == [
        field.name for field in attrs.fields(type(decode_digest(data))) if field.name != "leaving"
    ]


def test_the_signature_is_right():
    """The signature of the example is the public key's over prefix and digest, and over nothing less."""
    ((signature, text),) = _examples("signature")
    ((digest, _),) = _examples("digest")
    point, digest_sha256 = (bytes.fromhex(found) for found in re.findall(r"h'([0-9a-f]+)'", text))
    assert hashlib.sha256(digest).digest() == digest_sha256
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    key.verify(signature, b"esgf-gossip/digest/1\0" + digest, ec.ECDSA(hashes.SHA256()))
    assert len(signature) <= limits.SIGNATURE_BYTES


def test_prefix_and_protocol_name_are_those_of_the_code():
    """The words of the transport and of the signature are the code's."""
    assert f"`{ALPN_GOSSIP.decode()}`" in _section("2. Transport")
    assert DIGEST_CONTEXT.endswith(b"\0")
    assert f"{len(DIGEST_CONTEXT)} bytes `{DIGEST_CONTEXT[:-1].decode()}`" in _section(
        "7. Signature and chain"
    )


def test_the_root_is_the_hash_of_the_heads():
    """The root of the example is the SHA-256 of its bytes, and these are heads in their shortest form, sorted."""
    ((data, text),) = _examples("heads")
    assert text == f"root: h'{hashlib.sha256(data).hexdigest()}'"
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    heads = [read_head(head) for head in unpacker]
    assert b"".join(head.encoded for head in sorted(heads, key=lambda head: head.origin)) == data
    assert hashlib.sha256(b"").hexdigest() in _section("10. The root")


def test_the_roots_of_logs_are_those_of_the_code():
    """The example's roots are of its leaves, and the proof of message 19 leads from one to the other."""
    found = re.search(r"^```text logs\n(.*?)\n```$", _section("20. Logs"), re.DOTALL | re.MULTILINE)
    assert found is not None
    roots = dict(line.split(": ") for line in found.group(1).splitlines())
    leaves = [b"one", b"two", b"three", b"four", b"five"]
    assert roots == {size: merkle.Tree().extended(leaves[: int(size)]).root.hex() for size in roots}
    (proof,) = (decode(data) for data, text in _examples("message") if text.startswith("Proof\n"))
    shown = [root.hex() for root in merkle.consistency_roots(3, 5, proof.hashes)]
    assert shown == [roots["3"], roots["5"]]


def test_the_rings_are_those_of_the_code():
    """The order of names in the example is what the overlay draws."""
    found = re.search(r"^```text ring\n(.*?)\n```$", _section("14. Overlay"), re.DOTALL | re.MULTILINE)
    assert found is not None
    for number, line in enumerate(found.group(1).splitlines()):
        names = line.removeprefix(f"{number}: ").split()
        assert overlay.ring(number, sorted(names)) == names


def test_the_goodbye_codes_are_those_of_the_code():
    """Every code of a goodbye is explained under its number."""
    rows = [row for row in _rows(_section("11 Goodbye")) if row[0].isdigit() and row[1].isupper()]
    assert {row[1]: int(row[0]) for row in rows} == {farewell.name: farewell.value for farewell in Farewell}


@functools.cache
def _tests() -> set[str]:
    """Return the names of all tests of this repository."""
    return {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }


def test_every_invariant_names_tests_that_exist():
    """Fourteen invariants, in order, each with tests of this repository."""
    rows = [row for row in _rows((ROOT / "docs" / "invariants.md").read_text()) if row[0].isdigit()]
    assert [int(row[0]) for row in rows] == list(range(1, 15))
    for number, _, tests in rows:
        named = re.findall(r"test_\w+", tests)
        assert len(named) >= 2, f"invariant {number}"
        assert set(named) <= _tests(), f"invariant {number}: {set(named) - _tests()}"


def test_every_threat_names_tests_that_exist():
    """Each row of the threats says what shows that the defence holds."""
    rows = [row for row in _rows((ROOT / "docs" / "threats.md").read_text()) if row[0] != "who"]
    assert len(rows) == 21
    for who, _, _, tests in rows:
        named = set(re.findall(r"test_\w+", tests))
        assert named, who
        assert named <= _tests(), f"{who}: {named - _tests()}"
