"""Programs of the system that a test needs; where CI says so, a missing one is a failure. No test lives here."""

import os
import subprocess

import pytest


def needs(*command: str, package: str):
    """Skip a test where a command does not run, and say which package has it."""
    try:
        is_there = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        is_there = False
    return pytest.mark.skipif(
        not is_there and os.environ.get("CI") != "true", reason=f"{package} is not installed"
    )
