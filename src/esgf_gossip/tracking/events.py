"""
What happened to a dataset, as its origin says it in its log ``datasets``, and as leaves.

No user is ever named in an event: logs are public to all members. Source: docs/protocol.md, "Logs";
docs/adr/0021-tracking.md.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

import attrs

from esgf_gossip.core import packing
from esgf_gossip.core.errors import WireError
from esgf_gossip.tracking.identity import DatasetId, IdentityError, make_dataset

# The name of the log in a digest.
LOG: Final = "datasets"
REASON_CHARACTERS: Final = 200
# protocol: these bounds together leave a leaf below its 4 KiB.
UNCHANGED_FILES: Final = 200
FILE_KEY_BYTES: Final = 8
EPOCH_MAX: Final = 1_000_000
# protocol: versions that one replaces.
VERSIONS: Final = 16
WORD_CHARACTERS: Final = 40

_EVENT: Final = 1
_CLAIM: Final = 2
_KEY_PREFIX: Final = b"esgf-gossip/change/1\0"


class EventType(StrEnum):
    """What happened; the values are what leaves, JSON and command line say."""

    # A first version, or one that was on record before tracking began.
    PUBLISHED = "published"
    NEW_VERSION = "new-version"
    RETRACTED = "retracted"
    REINSTATED = "reinstated"
    # The original's record was deleted without a retraction: no fault of the data is known.
    UNPUBLISHED = "unpublished"
    REPLICATED = "replicated"
    REPLICA_REMOVED = "replica-removed"


# What users who hold a copy are told of; an erratum is told too, and is no event of a log.
TOLD: Final = frozenset({EventType.NEW_VERSION, EventType.RETRACTED, EventType.REINSTATED})
ERRATUM: Final = "erratum"
# What makes its author the holder of the original.
CLAIMS: Final = frozenset({EventType.PUBLISHED, EventType.NEW_VERSION})
# What only the holder of the original may say.
OF_ORIGINALS: Final = frozenset(EventType) - {EventType.REPLICATED, EventType.REPLICA_REMOVED}


@attrs.frozen
class DatasetEvent:
    """
    One thing that happened to one copy of a dataset version.

    Args:
        type: what.
        dataset: the version; of a ``NEW_VERSION`` the new one.
        data_node: the host that serves this copy, lower case; the author of the event must be certified for it.
        epoch: how often this version was reinstated; 0 at first.
        occurred_ms: Unix milliseconds by the source's clock: shown, and compared with the age from which nobody is mailed.
        supersedes: versions (digits) of the same dataset that this one replaces, newest first; of ``NEW_VERSION`` only.
        unchanged: keys of files (``file_key``) with the same checksum in the version before; of ``NEW_VERSION`` only.
            A file that is not among them may be unchanged all the same.
        reason: for people, one line; may be empty.
        source: where it was seen first: ``proxy``, ``stac``, ``kafka``, ``journal``, ``index``, ``task``, ``hand``.
    """

    type: EventType
    dataset: DatasetId
    data_node: str
    epoch: int
    occurred_ms: int
    supersedes: tuple[str, ...] = ()
    unchanged: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    reason: str = ""
    source: str = "hand"

    @property
    def change_key(self) -> bytes:
        """The key of what changed, the same whoever saw it and however often: without data node, source and clock."""
        return change_key(self.type, self.dataset.instance_id, self.epoch)


def change_key(kind: str, name: str, epoch: int) -> bytes:
    """Return the key of a change: SHA-256 of its kind, what it happened to (a version, an erratum), its epoch."""
    return hashlib.sha256(_KEY_PREFIX + f"{kind}|{name}|{epoch}".encode()).digest()


def file_key(name: str) -> bytes:
    """Return the short hash that names a file of a dataset, by its name without any folder."""
    return hashlib.sha256(name.encode()).digest()[:FILE_KEY_BYTES]


@attrs.frozen
class Claim:
    """
    That the author sees to the mail of one person about one change, in place of a home node that is down.

    ``token`` hides both (``tracking.claims``); ``is_sent``: the mail has gone out; else: it is about to.
    """

    token: bytes
    is_sent: bool


def encode_event(event: DatasetEvent) -> bytes:
    """Write the leaf of an event."""
    return packing.pack(
        [
            _EVENT,
            event.type.value,
            event.dataset.master_id,
            event.dataset.version,
            event.data_node,
            event.epoch,
            event.occurred_ms,
            event.supersedes,
            event.unchanged,
            event.reason,
            event.source,
        ]
    )


def encode_claim(claim: Claim) -> bytes:
    """Write the leaf of a claim."""
    return packing.pack([_CLAIM, claim.token, claim.is_sent])


def decode_leaf(leaf: bytes) -> DatasetEvent | Claim | None:
    """
    Read one leaf; None for a kind, or a type of event, of a later version. Fields after those known are ignored.

    Raises:
        WireError: it is none.
    """
    fields = packing.array(packing.unpack(leaf), 1, "a leaf of datasets")
    kind = packing.number(fields[0])
    if kind == _CLAIM:
        packing.array(fields, 3, "a claim")
        return Claim(packing.sha256(fields[1]), packing.flag(fields[2]))
    if kind == _EVENT:
        return _event(packing.array(fields, 11, "an event of a dataset"))
    return None


def _event(fields: list[object]) -> DatasetEvent | None:
    try:
        kind = EventType(_word(fields[1]))
    except ValueError:
        return None
    dataset = _dataset(fields[2], fields[3])
    supersedes = tuple(
        _dataset(dataset.master_id, version).version
        for version in packing.items(fields[7], _word, VERSIONS, "versions")
    )
    return DatasetEvent(
        kind,
        dataset,
        packing.host(fields[4]),
        packing.number(fields[5], EPOCH_MAX),
        packing.time_ms(fields[6]),
        supersedes,
        packing.items(
            fields[8], lambda one: packing.blob(one, FILE_KEY_BYTES, FILE_KEY_BYTES), UNCHANGED_FILES, "files"
        ),
        packing.free_text(fields[9])[:REASON_CHARACTERS],
        _word(fields[10]),
    )


def _word(value: object) -> str:
    if type(value) is not str or len(value) > WORD_CHARACTERS or not value.isprintable():
        raise WireError("a word was expected")
    return value


def _dataset(master_id: object, version: object) -> DatasetId:
    if type(master_id) is not str or type(version) is not str:
        raise WireError("the name of a dataset version was expected")
    try:
        return make_dataset(master_id, version)
    except IdentityError as error:
        raise WireError(str(error)) from None
