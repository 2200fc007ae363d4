"""
The daemon of a member that lies: ``python -P forging_daemon.py run --config FILE``.

Whatever its command line is told to say of datasets it says, for data nodes of others and of originals that are others'.
Its signatures and its place in the logs are good; that it should not count is for the others to see.
"""

import sys

import attrs

from esgf_gossip import dataset_keeper
from esgf_gossip.cli.main import main
from esgf_gossip.tracking.events import DatasetEvent, EventType


def _events_of(_connection, _own, word):
    """Claim the original, then say the word as it is."""
    event = DatasetEvent(
        word.type,
        word.dataset,
        word.data_node,
        0,
        word.occurred_ms,
        word.supersedes,
        reason=word.reason,
        source=word.source,
    )
    claim = attrs.evolve(event, type=EventType.PUBLISHED, supersedes=())
    return [claim, event] if word.type is EventType.RETRACTED else [event]


def _forge():
    """Pass over, from now on, what keeps an honest node from saying such things."""
    dataset_keeper.events_of = _events_of
    dataset_keeper.DatasetKeeper._check_hosts = lambda _keeper, _data_nodes: None


if __name__ == "__main__":
    _forge()
    sys.exit(main())
