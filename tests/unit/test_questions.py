"""What can be asked of the past: web.questions."""

import pytest

from esgf_gossip.web.questions import QuestionError, time_of, times_between

NOW_MS = 1_800_000_000_000


def test_what_has_not_come_yet_is_refused():
    """The state of tomorrow is not that of today under another date."""
    with pytest.raises(QuestionError, match=r"at: 2030-01-01 00:00:00 UTC has not come yet"):
        time_of({"at": "2030-01-01"}, NOW_MS)
    for name in ("from", "to"):
        fields = {"from": "2026-01-01", name: "2030-01-01"}
        with pytest.raises(QuestionError, match=rf"{name}: .* has not come yet"):
            times_between(fields, NOW_MS)


def test_a_clock_a_little_ahead_asks_for_now():
    """Client and host need not agree to the second."""
    assert time_of({"at": "2027-01-15T08:00:30Z"}, NOW_MS) == NOW_MS
    assert time_of({"at": "2027-01-15T07:59:30Z"}, NOW_MS) == NOW_MS - 30_000
    assert times_between({"from": "2027-01-15T08:00:01Z"}, NOW_MS) == (NOW_MS, NOW_MS)
