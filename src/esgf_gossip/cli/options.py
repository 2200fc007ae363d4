"""
The options that many commands share.

Only options and the reading of what arguments name live here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from esgf_gossip import __version__
from esgf_gossip.config import DEFAULT_PATH
from esgf_gossip.files import read_file


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--version`` and ``--debug``; the latter is read by ``main`` from the arguments themselves."""
    version = click.version_option(__version__, prog_name="esgf-gossip", message="%(prog)s %(version)s")
    debug = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of a failure.")
    return version(debug(command))


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--config``; the command gets ``config_path``, as it was given."""
    option = click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        envvar="ESGF_GOSSIP_CONFIG",
        default=DEFAULT_PATH,
        show_default=True,
        show_envvar=True,
        metavar="FILE",
        help="The node.toml of the node.",
    )
    return option(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json``; the command gets ``json_output``."""
    return click.option("--json", "json_output", is_flag=True, help="Print JSON.")(command)


def read_input(file: Path, most_bytes: int) -> bytes:
    """
    Read a file, or standard input where it is "-", at most so many bytes and one more, which tells that it is too long.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    if str(file) == "-":
        return sys.stdin.buffer.read(most_bytes + 1)
    return read_file(file, most_bytes + 1)
