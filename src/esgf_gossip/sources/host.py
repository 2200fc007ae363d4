"""
What this host has: processors and load, memory, and the file systems of the data.

Linux: load average and ``/proc/meminfo``. A file system that does not answer (a network mount that hangs) holds up whoever
asks: with ``storage`` this is for a thread.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from esgf_gossip.esgf.resources import Resources
from esgf_gossip.sources.gauge import SourceError

MEMORY: Final = Path("/proc/meminfo")
_LOAD_OF_FIVE_MINUTES: Final = 1


def read_host(storage: Sequence[Path], compute: Sequence[str]) -> Resources:
    """
    Read the state of this moment, exactly.

    Args:
        storage: folders of data; each of their file systems counts once. Blocks for as long as they take.
        compute: endpoints to name.

    Raises:
        SourceError: the system does not say, or a folder is not there.
    """
    try:
        # A container or a unit may have fewer processors than the machine.
        cores = len(os.sched_getaffinity(0))
        load = os.getloadavg()[_LOAD_OF_FIVE_MINUTES]
        memory_bytes, memory_free_bytes = _memory()
        sizes = _storage(storage)
    except OSError as error:
        place = error.filename or "this host"
        raise SourceError(
            f"{place}: {error.strerror or type(error).__name__}; see [metrics] in node.toml"
        ) from None
    except (KeyError, ValueError, IndexError):
        raise SourceError(
            f"{MEMORY}: has not the lines it should have; set [metrics] resources = false"
        ) from None
    return Resources(
        cores=cores,
        load=min(math.floor(load + 0.5), 2 * cores),
        memory_bytes=memory_bytes,
        memory_free_bytes=memory_free_bytes,
        storage_bytes=sizes[0] if storage else None,
        storage_free_bytes=sizes[1] if storage else None,
        compute_endpoints=tuple(compute),
    )


def _memory() -> tuple[int, int]:
    lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines() if ":" in line)
    return int(lines["MemTotal"].split()[0]) * 1024, int(lines["MemAvailable"].split()[0]) * 1024


def _storage(folders: Sequence[Path]) -> tuple[int, int]:
    systems = {folder.stat().st_dev: folder for folder in folders}
    usages = [shutil.disk_usage(folder) for folder in systems.values()]
    return sum(usage.total for usage in usages), sum(usage.free for usage in usages)
