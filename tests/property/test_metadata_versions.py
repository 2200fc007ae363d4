"""Documents are a function of the leaves held: no order, no repetition and no liar changes what honest writers wrote."""

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.documents.leaves import (
    BODY_BYTES,
    PARENTS,
    PieceLeaf,
    VersionLeaf,
    body_of,
    decode_leaf,
    encode_body,
    encode_version,
    sha256_of,
    version_id,
)
from esgf_gossip.documents.names import DocumentNameError, parse_name
from esgf_gossip.documents.writings import Writings
from helpers.writers import NAME, PROJECT, ROLES, Writer, picture, put_leaves, read_all, refusals

NAMES = [NAME, parse_name(f"{PROJECT}/publisher/models"), parse_name(f"{PROJECT}/search/facets.ini")]
WRITERS = 3

numbers = st.integers(0, 2)
bodies = st.one_of(
    st.none(), st.binary(max_size=40), st.binary(min_size=1, max_size=3).map(lambda b: b * 5000)
)
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("put"), numbers, numbers, bodies, st.integers(0, 10**9)),
        st.tuples(st.just("hear"), numbers, numbers, st.integers(1, 6)),
    ),
    max_size=30,
)
orders = st.lists(st.integers(0, 7), max_size=120)


def played(history):
    """Return writers after a history of writing and hearing; they write over the heads they know."""
    writers = [Writer(f"w{number}.example.org") for number in range(WRITERS)]
    for what, who, *how in history:
        if what == "put":
            which, body, time_ms = how
            writers[who].put(NAMES[which], body, time_ms=time_ms)
        elif how[0] != who:
            writers[who].hear(writers[how[0]], how[1])
    return writers


def hostile_leaves(writers, draw):
    """Return leaves that lie: of honest ids as parents or of none, of garbage, of bodies that are not there."""
    known = [
        version.id for writer in writers for version in writer.library.writings(writer.name).versions.values()
    ]
    parents = st.lists(
        st.one_of(st.binary(min_size=32, max_size=32), *([st.sampled_from(known)] if known else [])),
        max_size=4,
        unique=True,
    )
    lies = st.one_of(
        st.builds(put_leaves, st.sampled_from(NAMES), bodies, parents),
        st.binary(min_size=1, max_size=60).map(lambda garbage: [garbage]),
        st.builds(
            lambda name, named: put_leaves(name, b"x" * 20, named)[-1:], st.sampled_from(NAMES), parents
        ),
        st.integers(0, 2**64 - 1).map(
            lambda huge: [packing.pack([2, str(NAME), [b"\1" * 32], huge, sha256_of(b""), huge % 2**63])]
        ),
        st.integers(0, 2**64 - 1).map(lambda huge: [packing.pack([1, b"\0" * 32, huge, b"x"])]),
        st.just([packing.pack([3, "of a later version"])]),
    )
    return [leaf for leaves in draw(st.lists(lies, min_size=1, max_size=8)) for leaf in leaves]


@settings(deadline=None)
@given(deeds, orders, orders)
def test_any_interleaving_gives_the_same_documents(history, one, other):
    """Logs read in any order among each other come to one picture, refusals too."""
    writers = played(history)
    first, second = read_all(writers, one), read_all(writers, other)
    assert picture(first) == picture(second)
    assert refusals(first) == refusals(second) == {writer.name: (0, []) for writer in writers}


@settings(deadline=None)
@given(deeds, orders, numbers)
def test_reading_again_changes_nothing(history, order, again):
    """An author read anew, leaves given back twice, an author forgotten and read: the same picture."""
    writers = played(history)
    library = read_all(writers, order)
    before = picture(library)
    writer = writers[again]
    anew = Writings(writer.name, writer.roles)
    for number, leaf in enumerate(writer.log):
        anew.add(number, leaf)
    library.put(anew)
    assert picture(library) == before
    for number, leaf in enumerate(writer.log):
        library.add(writer.name, len(writer.log) + number, leaf)
    assert picture(library) == before
    library.forget(writer.name)
    library.put(anew)
    assert picture(library) == before
    others = [one for one in writers if one is not writer]
    library.forget(writer.name)
    assert picture(library) == picture(read_all(others))


@settings(deadline=None)
@given(deeds, orders)
def test_heads_and_generations_are_those_of_the_definition(history, order):
    """A conflict is more than one version that none names; a generation is 1 + the highest of the parents held."""
    library = read_all(played(history), order)
    for name in library.names:
        document = library.get(name)
        versions = {version.id: version for version in document.history}
        named = {parent for version in versions.values() for parent in version.parents}
        heads = {key for key in versions if key not in named}
        assert {head.id for head in document.heads} == heads == document.head_ids
        assert document.is_conflict == (len(heads) > 1)
        for version in reversed(document.history):
            held = [document.generation(versions[one]) for one in version.parents if one in versions]
            assert document.generation(version) == 1 + max(held, default=0)
        places = [(-document.generation(version), version.id) for version in document.history]
        assert places == sorted(places)


@settings(deadline=None)
@given(deeds, orders, numbers)
def test_a_merge_ends_every_conflict_for_everybody(history, order, who):
    """One writer who has heard all and writes over all heads leaves one head, its own, in every order."""
    writers = played(history)
    merger = writers[who]
    for writer in writers:
        if writer is not merger:
            merger.hear(writer)
    for name in merger.library.names:
        merged = merger.put(name, b"merged")
        assert [head.id for head in read_all(writers, order).get(name).heads] == [merged]


@settings(deadline=None)
@given(deeds, orders, st.data())
def test_a_writer_without_the_role_changes_nothing(history, order, data):
    """Whatever stands in the log of a member that may not write, the documents are the same; it is shown as refused."""
    writers = played(history)
    liar = Writer("liar.example.org", roles=frozenset({"member", "document-writer.other", "secret-admin"}))
    liar.log = hostile_leaves(writers, data.draw)
    library = read_all([*writers, liar], order)
    assert picture(library) == picture(read_all(writers))
    versions = [leaf for leaf in liar.log if is_version(leaf)]
    refused = refusals(library)[liar.name]
    assert refused[0] >= len(versions)
    for leaf in versions:
        assert any(liar.log[one.leaf] == leaf and one.document in map(str, NAMES) for one in refused[1])


def is_version(leaf):
    """Tell whether a leaf is a version."""
    try:
        return isinstance(decode_leaf(leaf), VersionLeaf)
    except WireError:
        return False


@settings(deadline=None)
@given(deeds, orders, st.data())
def test_a_writer_who_lies_hides_no_version_and_stops_nobody(history, order, data):
    """Lies of a certified writer: all that others wrote stays in the history, and the next put over all heads counts."""
    writers = played(history)
    liar = Writer("liar.example.org")
    liar.log = hostile_leaves(writers, data.draw)
    library = read_all([*writers, liar], order)
    assert picture(library) == picture(read_all([liar, *writers]))
    honest = read_all(writers)
    for name in honest.names:
        kept = {version.id: version for version in library.get(name).history}
        assert {version.id for version in honest.get(name).history} <= set(kept)
        named = {parent for version in kept.values() for parent in version.parents}
        for head in honest.get(name).heads:
            assert head.id in named or head in library.get(name).heads
    writer = writers[0]
    for other in (*writers[1:], liar):
        writer.hear(other)
    for name in writer.library.names:
        written = writer.put(name, b"and yet")
        head, *others = read_all([*writers, liar], order).get(name).heads
        assert (head.id, others) == (written, [])


@given(bodies.filter(lambda body: body is not None), st.booleans())
def test_a_version_counts_before_its_parent_and_after_it(body, comes_first):
    """A parent that has not come yet is said to be missing; when it comes it is no head."""
    one, other = Writer("a.example.org"), Writer("b.example.org")
    parent = one.put(NAME, b"first")
    other.hear(one)
    child = other.put(NAME, body + b"!")
    library = read_all([other])
    document = library.get(NAME)
    assert [head.id for head in document.heads] == [child]
    assert document.missing_parents(document.heads[0]) == (parent,)
    assert document.generation(document.heads[0]) == 1
    library = read_all([one, other] if comes_first else [other, one])
    document = library.get(NAME)
    assert [head.id for head in document.heads] == [child]
    assert [document.generation(version) for version in document.history] == [2, 1]
    assert document.missing_parents(document.heads[0]) == ()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_a_body_counts_only_whole_and_in_order(picks):
    """Of pieces left out, repeated or moved, either the body itself results or the version is refused."""
    body = bytes(range(251)) * 200
    pieces, said = encode_body(body), put_leaves(NAME, body)[-1]
    assert len(pieces) > 10
    for leaves in ([pieces[pick % len(pieces)] for pick in picks], pieces):
        writings = Writings("a.example.org", ROLES)
        for number, leaf in enumerate(leaves):
            writings.add(number, leaf)
        version = writings.add(len(leaves), said)
        if version is None:
            assert writings.refused_count == 1
        else:
            assert body_of([leaves[number] for number in version.body.leaves], sha256_of(body)) == body
    assert version is not None


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_body_that_is_another_than_was_said_does_not_count(body, data):
    """Neither other bytes under the hash of these, nor another size than they have."""
    place = data.draw(st.integers(0, len(body) - 1))
    forged = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
    piece = packing.pack([1, sha256_of(body), 0, forged])
    said = put_leaves(NAME, body)[-1]
    size = packing.pack([*packing.unpack(said)[:5], len(body) + data.draw(st.sampled_from([-1, 1]))])
    for leaves in ([piece, said], [*encode_body(body), size]):
        writings = Writings("a.example.org", ROLES)
        assert [writings.add(number, leaf) for number, leaf in enumerate(leaves)] == [None] * len(leaves)
        assert writings.refused_count == 1
    # Nor does a lie keep the right one from counting afterwards.
    assert any(writings.add(number, leaf) for number, leaf in enumerate([*encode_body(body), said], 2))


names = st.text("aA0.-_ é/\0", max_size=12)


@given(names, names, names)
def test_a_name_is_strict_and_safe_in_a_path(project, application, name):
    """What is taken as a name is safe in paths and comes back the same; all else is one clear error."""
    text = f"{project}/{application}/{name}"
    try:
        parsed = parse_name(text)
    except DocumentNameError:
        return
    assert str(parsed) == text
    for part in attrs.astuple(parsed):
        assert part.isascii()
        assert part[0].isalnum()
        assert part[-1].isalnum()
        assert "/" not in part


@given(
    st.builds(
        VersionLeaf,
        st.sampled_from(NAMES),
        st.lists(st.binary(min_size=32, max_size=32), max_size=PARENTS, unique=True).map(tuple),
        st.integers(0, 10**12),
        st.binary(min_size=32, max_size=32),
        st.integers(0, BODY_BYTES),
    ),
    st.lists(st.integers(), max_size=2),
)
def test_a_leaf_is_read_as_it_was_written(version, later):
    """Fields that a later version puts at the end are passed over, and are part of what the id stands for."""
    leaf = encode_version(version)
    assert decode_leaf(leaf) == version
    fields = packing.unpack(leaf)
    longer = packing.pack([*fields, *[number % 2**60 for number in later]])
    assert decode_leaf(longer) == version
    assert (version_id("a.example.org", longer) == version_id("a.example.org", leaf)) == (not later)
    assert version_id("b.example.org", leaf) != version_id("a.example.org", leaf)


@given(st.one_of(st.binary(max_size=200), st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=8), st.binary(max_size=40)),
    lambda inner: st.lists(inner, max_size=7), max_leaves=12).map(packing.pack)))  # fmt: skip
def test_any_bytes_are_a_leaf_or_a_wire_error(data):
    """No bytes make anything else."""
    try:
        said = decode_leaf(data)
    except WireError:
        return
    assert said is None or isinstance(said, PieceLeaf | VersionLeaf)
