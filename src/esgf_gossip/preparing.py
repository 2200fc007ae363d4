"""What a daemon does before it does anything else: folders, rest for the garbage collector, the tracker's database."""

from __future__ import annotations

import gc
from pathlib import Path

from esgf_gossip.config import Config
from esgf_gossip.net.trust_keeper import TrustPlace
from esgf_gossip.storage.database import StorageError


def spare_the_collector() -> None:
    """Keep what the start has made out of the garbage collector's rounds: 50 to 90 ms in which all else waits."""
    gc.collect()
    gc.freeze()


def make_folder(folder: Path, setting: str) -> None:
    """
    Make a folder of a node, unless it is there.

    Raises:
        StorageError: something else is in its place; ``setting`` names it in node.toml.
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except FileExistsError:
        raise StorageError(f"{folder} is not a folder; name another as {setting} in node.toml") from None


def trust_place(config: Config) -> TrustPlace:
    """Return where the trust of a node lies, and whose it is."""
    return TrustPlace(
        config.trust.directory, config.node.host, config.node.federation, config.trust.secret_hook
    )
