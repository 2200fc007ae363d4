"""
``twist esgf-gossip`` and ``twistd esgf-gossip``: options and service.

Imported only when the command is chosen. No reactor at module level.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from twisted.application.service import IService
from twisted.python import usage

from esgf_gossip import __version__
from esgf_gossip.config import DEFAULT_PATH, Config, ConfigError, load
from esgf_gossip.net.clock import make_steady
from esgf_gossip.service import CANNOT_RUN, GossipService, StartError


class Options(usage.Options):
    """The options of the Twisted command; ``config`` is loaded and checked by ``postOptions``."""

    synopsis = "[options]"
    longdesc = "Run the federation daemon of an ESGF node. Example: twist esgf-gossip --config /etc/esgf-gossip/node.toml"
    optParameters: ClassVar[list[Any]] = [
        ["config", "c", None, f"node.toml; default: $ESGF_GOSSIP_CONFIG, else {DEFAULT_PATH}"],
    ]
    loaded: Config
    path: Path

    def opt_version(self) -> None:
        """Show the version of esgf-gossip and exit."""
        print(f"esgf-gossip {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Read node.toml, so that a mistake in it is a usage error."""
        self.path = Path(self["config"] or os.environ.get("ESGF_GOSSIP_CONFIG") or DEFAULT_PATH).absolute()
        try:
            self.loaded = load(self.path)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None


class TapService(GossipService):
    """The service as Twisted's runners start it: a fault ends the process with one line."""

    def startService(self) -> None:
        """Start, or end the process with the reason."""
        try:
            super().startService()
        except StartError as error:
            if _is_in_background(sys.argv):
                # Of a twistd that has left the terminal its parent hears by an exception only.
                raise
            sys.stderr.write(f"esgf-gossip: error: {error}\n")
            raise SystemExit(CANNOT_RUN) from None


def _is_in_background(command: Sequence[str]) -> bool:
    """Tell whether this is ``twistd`` without ``-n``."""
    options = list(itertools.takewhile(lambda word: word != "esgf-gossip", command[1:]))
    stays = any(word == "--nodaemon" or re.fullmatch(r"-[a-zA-Z]*n[a-zA-Z]*", word) for word in options)
    return Path(command[0]).name.startswith("twistd") and not stays


def makeService(options: Options) -> IService:
    """Make the service that the options describe."""
    from twisted.internet import reactor  # noqa: PLC0415 - twist has chosen one by now

    make_steady(reactor)
    service: IService = TapService(options.loaded, options.path, reactor)
    return service
