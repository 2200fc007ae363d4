"""What esgf-feedback/1 says, for all values: read back as written, any bytes a message or a WireError, never too long."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core.errors import WireError
from esgf_gossip.core.limits import FRAME_BYTES, TIME_MS_MAX
from esgf_gossip.core.packing import pack
from esgf_gossip.tracking.feedback_messages import (
    USERS_MOST,
    Answer,
    Question,
    Verdict,
    batches,
    decode_answer,
    decode_match,
    decode_question,
    encode_answer,
    encode_match,
    encode_question,
)
from esgf_gossip.tracking.identity import DatasetId
from esgf_gossip.tracking.matches import DATASETS_NAMED, FILES_NAMED, FetchedFile, Match

KEY = bytes(range(32))
DATASETS = st.builds(
    DatasetId,
    st.from_regex(r"[A-Z][a-z0-9.]{0,20}[a-z]", fullmatch=True),
    st.from_regex(r"[0-9]{1,8}", fullmatch=True),
)
TIMES = st.integers(0, TIME_MS_MAX)
NAMES = st.text(st.characters(categories=["L", "N", "P"]), max_size=60)
FILES = st.builds(FetchedFile, DATASETS, NAMES, st.just("b.example.org"), TIMES, st.booleans())
MATCHES = st.builds(
    Match,
    st.just(KEY),
    st.from_regex(r"https://[a-z]{1,10}\.org/openid/[A-Za-z0-9]{1,20}", fullmatch=True),
    st.lists(FILES, max_size=4).map(tuple),
    st.integers(0, 10_000),
    st.lists(DATASETS, max_size=4).map(tuple),
    st.integers(0, 10_000),
    TIMES,
)


@settings(max_examples=60)
@given(st.lists(MATCHES, min_size=1, max_size=5))
def test_a_question_is_read_as_it_was_written(matches):
    """Every field comes through; fields of a later version are left out."""
    question = Question(KEY, tuple(matches))
    assert decode_question(encode_question(question)) == question
    assert [decode_match(encode_match(one), KEY) for one in matches] == matches


@given(st.sampled_from(Verdict), st.lists(st.integers(0, USERS_MOST - 1), max_size=20).map(tuple))
def test_an_answer_is_read_as_it_was_written(verdict, refused):
    """Both fields come through."""
    assert decode_answer(encode_answer(Answer(verdict, refused))) == Answer(verdict, refused)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.binary(max_size=40) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)


@given(
    st.binary(max_size=200)
    | JUNK.map(pack)
    | st.lists(JUNK, max_size=4).map(lambda rest: pack([1, KEY, *rest]))
)
def test_any_bytes_are_a_message_or_an_error(payload):
    """No other exception, whatever a member sends."""
    for decode in (decode_question, decode_answer, lambda one: decode_match(one, KEY)):
        try:
            said = decode(payload)
        except WireError:
            continue
        assert isinstance(said, Question | Answer | Match)


@given(st.text(max_size=400), st.integers(-(2**70), 2**70))
def test_whatever_a_log_of_downloads_holds_can_be_read_at_home(name, time_ms):
    """Names and times of files are cut to what a reader takes, so nothing that was kept is lost on the way."""
    file = FetchedFile(DatasetId("A.b", "1"), name, name, time_ms)
    match = Match(KEY, "https://h.org/openid/ann", (file,), 1, (), 0, time_ms)
    assert decode_match(encode_match(match), KEY).openid == match.openid


def test_no_question_is_longer_than_a_frame():
    """Batches of the largest matches and of many small ones keep to both bounds, and lose none."""
    dataset = DatasetId("X" * 255, "2" * 20)
    file = FetchedFile(dataset, "\N{SNOWMAN}" * 255, "h" * 253, TIME_MS_MAX)
    largest = Match(
        KEY,
        "https://h.org/" + "\N{SNOWMAN}" * 400,
        (file,) * FILES_NAMED,
        2**62,
        (dataset,) * DATASETS_NAMED,
        2**62,
        TIME_MS_MAX,
    )
    small = attrs.evolve(largest, files=(), datasets=(), openid="https://h.org/a")
    for matches in ([largest] * 5, [small] * 450, [small, largest] * 10):
        parts = list(batches(matches))
        assert [one for part in parts for one in part] == matches
        assert max(len(encode_question(Question(KEY, part))) for part in parts) <= FRAME_BYTES
        assert max(len(part) for part in parts) <= USERS_MOST
