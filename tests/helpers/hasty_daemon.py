"""The daemon with turns of stand-ins that take seconds: ``python -P hasty_daemon.py run --config FILE``; ``$SETTLE_S``."""

import os
import sys

from esgf_gossip.cli.main import main
from esgf_gossip.tracking import claims

if __name__ == "__main__":
    claims.SETTLE_MS = int(float(os.environ["SETTLE_S"]) * 1000)
    sys.exit(main())
