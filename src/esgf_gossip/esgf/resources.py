"""
What a node has room for: cores, memory, storage, compute endpoints, as value and as bytes of the entry ``resources``.

Told in coarse steps, so that a busy host does not keep the federation busy. Source: docs/formats.md, section 12.
"""

from __future__ import annotations

from typing import Final

import attrs
import msgpack

from esgf_gossip.esgf.bodies import BodyError, is_number, unpacked

# The name of the entry.
RESOURCES: Final = "resources"
NUMBER_MAX: Final = 2**63 - 1
# More cores than any question has to ask for.
CORES_MOST: Final = 1_000_000
COMPUTE_ENDPOINTS: Final = 16
ENDPOINT_CHARACTERS: Final = 2048
# Of the whole: what is free is told in sixteenths of memory and cores, in hundredths of storage.
_SIXTEENTH: Final = 16
_HUNDREDTH: Final = 100


@attrs.frozen
class Resources:
    """
    The resources of one host; None where it does not say.

    Args:
        cores: processors of the host.
        load: how many of them were busy over five minutes, as the system's load average says; at most twice ``cores``.
        memory_bytes: main memory.
        memory_free_bytes: of it what programs could have.
        storage_bytes: size of the file systems that hold data.
        storage_free_bytes: of it what is free.
        compute_endpoints: where this node computes for others.
    """

    cores: int | None = None
    load: int | None = None
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None
    storage_bytes: int | None = None
    storage_free_bytes: int | None = None
    compute_endpoints: tuple[str, ...] = ()

    @property
    def cores_free(self) -> int | None:
        """Return the cores that are not busy, None where the host does not say."""
        if self.cores is None or self.load is None:
            return None
        return max(0, self.cores - self.load)

    def numbers(self) -> dict[str, int]:
        """Return the numbers there are, by name, ``cores_free`` among them."""
        named = {**attrs.asdict(self), "cores_free": self.cores_free}
        return {name: named[name] for name in NAMES if named[name] is not None}

    def coarse(self, told: Resources) -> Resources:
        """
        Return what to tell of these: free amounts and load in steps, and as told while they are within a step of it.

        Args:
            told: what was told last.
        """
        return attrs.evolve(
            self,
            load=_step(self.load, told.load, max(1, (self.cores or 0) // _SIXTEENTH)),
            memory_free_bytes=_step(
                self.memory_free_bytes,
                told.memory_free_bytes,
                max(1, (self.memory_bytes or 0) // _SIXTEENTH),
            ),
            storage_free_bytes=_step(
                self.storage_free_bytes,
                told.storage_free_bytes,
                max(1, (self.storage_bytes or 0) // _HUNDREDTH),
            ),
        )


NOTHING_SAID: Final = Resources()
# As they stand in the API, in this order.
NAMES: Final = (
    "cores",
    "cores_free",
    "load",
    "memory_bytes",
    "memory_free_bytes",
    "storage_bytes",
    "storage_free_bytes",
)
_TOLD: Final = tuple(name for name in NAMES if name != "cores_free")


def to_body(resources: Resources) -> bytes:
    """Encode as the body of the entry ``resources``: equal resources give equal bytes."""
    fields = attrs.asdict(resources)
    numbers = {name: fields[name] for name in _TOLD if fields[name] is not None}
    packed: bytes = msgpack.packb(
        {"resources": {**numbers, "compute_endpoints": list(resources.compute_endpoints)}}
    )
    return packed


def from_body(body: bytes) -> Resources:
    """
    Decode a body that anyone may have made; names not known here are passed over.

    Raises:
        BodyError: the bytes are no such body, or beyond a bound.
    """
    fields = unpacked(body, RESOURCES)
    said = fields.get("resources") if isinstance(fields, dict) else None
    if not isinstance(said, dict):
        raise BodyError("resources: not a map")
    numbers = {name: said[name] for name in _TOLD if said.get(name) is not None}
    if not all(is_number(number, NUMBER_MAX) for number in numbers.values()):
        raise BodyError(f"resources: not a number from 0 to {NUMBER_MAX}")
    endpoints = said.get("compute_endpoints", [])
    if not isinstance(endpoints, list) or len(endpoints) > COMPUTE_ENDPOINTS:
        raise BodyError(f"resources: not a list of at most {COMPUTE_ENDPOINTS} compute endpoints")
    if not all(isinstance(one, str) and len(one) <= ENDPOINT_CHARACTERS for one in endpoints):
        raise BodyError("resources: a compute endpoint is no short text")
    return Resources(**numbers, compute_endpoints=tuple(endpoints))


def _step(found: int | None, told: int | None, step: int) -> int | None:
    if found is None or (told is not None and abs(found - told) < step):
        return found if found is None else told
    return found // step * step
