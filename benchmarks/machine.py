"""What stands above all figures: the commit, the machine and Python. No benchmark of its own."""

import os
import platform
import subprocess
from pathlib import Path


def commit() -> str:
    """Return the commit that is measured, or ``unknown``."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return found.stdout.strip() or "unknown"


def machine() -> str:
    """Return processor, cores and Python."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def machine_line(*more: str) -> str:
    """Return commit and machine in one line, and what else is to be said of the run."""
    return ", ".join((f"commit {commit()}", machine(), *more))
