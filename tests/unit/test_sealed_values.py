"""Values sealed at rest: the key file, what opens and what does not, hashes."""

import stat

import pytest

from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.sealed_values import HASH_BYTES, OVERHEAD_BYTES, SealedValues


def test_a_sealed_value_opens_again_after_a_restart(tmp_path):
    """The key is made once, private, and read by the next start."""
    path = tmp_path / "state" / "tracking.key"
    sealed = SealedValues(path).seal(b"jane@site.org", "address")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"jane" not in sealed
    assert len(sealed) == len(b"jane@site.org") + OVERHEAD_BYTES
    assert SealedValues(path).open(sealed, "address") == b"jane@site.org"


def test_what_does_not_fit_opens_nothing_and_tells_nothing(tmp_path):
    """Another context, another key, any turned bit, any shorter text: the same error, without the value."""
    values = SealedValues(tmp_path / "one.key")
    sealed = values.seal(b"jane@site.org", "address")
    bad = [sealed[:n] for n in range(0, len(sealed), 5)]
    bad += [sealed[:n] + bytes([sealed[n] ^ 1]) + sealed[n + 1 :] for n in range(len(sealed))]
    for text in bad:
        with pytest.raises(TrustError, match="E-SEAL-OPEN") as caught:
            values.open(text, "address")
        assert "jane" not in str(caught.value)
    with pytest.raises(TrustError, match="E-SEAL-OPEN"):
        values.open(sealed, "token")
    with pytest.raises(TrustError, match="E-SEAL-OPEN"):
        SealedValues(tmp_path / "two.key").open(sealed, "address")
    assert values.seal(b"jane@site.org", "address") != sealed


def test_hashes_are_equal_for_equal_texts_of_one_key_and_context(tmp_path):
    """Neither the context nor the border between it and the text can be confused."""
    values, others = SealedValues(tmp_path / "one.key"), SealedValues(tmp_path / "two.key")
    hashed = values.keyed_hash("address", "jane@site.org")
    assert len(hashed) == HASH_BYTES
    assert SealedValues(tmp_path / "one.key").keyed_hash("address", "jane@site.org") == hashed
    assert (
        len(
            {
                hashed,
                values.keyed_hash("addressj", "ane@site.org"),
                others.keyed_hash("address", "jane@site.org"),
            }
        )
        == 3
    )


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [(b"short", 0o600, "E-KEY"), (b"x" * 32, 0o640, "E-MODE"), (b"", 0o600, "E-KEY")],
)
def test_a_key_file_that_is_not_as_it_must_be_is_refused(tmp_path, content, mode, code):
    """Cut short or readable by others: one line that says so."""
    path = tmp_path / "tracking.key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(TrustError, match=code):
        SealedValues(path)
