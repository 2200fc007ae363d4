"""
The daemon as a process of its own, without twistd: log on stdout, exit code at the end.

No reactor is imported at module level (docs/adr/0002).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from esgf_gossip.config import Config
from esgf_gossip.log_output import LogOutput, LogRule, is_journal
from esgf_gossip.net.clock import make_steady
from esgf_gossip.service import CANNOT_RUN, GossipService, StartError


def run_in_foreground(config: Config, config_path: Path) -> int:
    """Run the daemon until it is told to stop; return the exit code of the process."""
    from twisted.internet import reactor  # noqa: PLC0415 - installing it is the program's decision
    from twisted.logger import globalLogBeginner  # noqa: PLC0415

    rule = LogRule.read(config.node.log_format, config.node.log_levels)
    has_priorities = is_journal(sys.stdout, os.environ.get("JOURNAL_STREAM", ""))
    output = LogOutput(sys.stdout, rule, has_priorities=has_priorities)
    globalLogBeginner.beginLoggingTo([output], redirectStandardIO=False, discardBuffer=True)
    # Until the service has its handler: a reload asked for too early must not end the process.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    make_steady(reactor)
    service = GossipService(config, config_path, reactor)
    service.log_output = output
    try:
        service.startService()
    except StartError as error:
        sys.stderr.write(f"esgf-gossip: error: {error}\n")
        return CANNOT_RUN
    any_reactor: Any = reactor
    any_reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    any_reactor.run()
    output.close()
    return service.exit_code
