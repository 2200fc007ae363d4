"""How a fault at the start reaches whoever ran twist or twistd: tap."""

import pytest

from esgf_gossip.tap import _is_in_background


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/bin/twistd", "esgf-gossip", "--config", "node.toml"], True),
        (["/bin/twistd", "--pidfile=x", "--logfile=y", "esgf-gossip", "-n"], True),
        (["/bin/twistd", "-n", "esgf-gossip"], False),
        (["/bin/twistd", "-on", "esgf-gossip"], False),
        (["/bin/twistd", "--nodaemon", "esgf-gossip"], False),
        (["/bin/twist", "esgf-gossip"], False),
    ],
)
def test_twistd_without_n_is_in_the_background(command, expected):
    """Only there does Twisted learn of a failed start from an exception."""
    assert expected is _is_in_background(command)
