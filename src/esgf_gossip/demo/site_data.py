"""
The site data of thirteen real ESGF nodes of March 2015, and copies of them for larger federations.

Only reading the package data and writing it out lives here. Mail addresses are
replaced; nothing else is: the nodes' own ``registration.xml`` comes out again.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from esgf_gossip.sources.site import SiteFiles

# The first five are a mix: a full node with three peer groups, one without GridFTP, one with
# 38 access groups, a data node without a host DN, a data and compute node.
_HOSTS: Final = (
    "pcmdi9.llnl.gov",
    "esgf-data.dkrz.de",
    "esgf-index1.ceda.ac.uk",
    "cmip-dn1.badc.rl.ac.uk",
    "vesg.ipsl.fr",
    "esgf-node.ipsl.fr",
    "esgdata.gfdl.noaa.gov",
    "dapp2p.cccma.ec.gc.ca",
    "esg.pik-potsdam.de",
    "esg2.e-inis.ie",
    "euclipse1.dkrz.de",
    "esg.cnrm-game-meteo.fr",
    "vesg.ipsl.polytechnique.fr",
)


def site_hosts(count: int = len(_HOSTS)) -> list[str]:
    """
    Name the hosts of a demo federation, always in the same order.

    Beyond thirteen come copies: the fourteenth is ``n14.`` and the name of the first, and so on.
    """
    return [_host(number) for number in range(1, count + 1)]


def write_site(site: int | str, directory: Path) -> SiteFiles:
    """
    Write ``esgf.properties``, ``config_type`` and ``groups.txt`` of one site into a folder.

    In a copy its host takes the place of the original's in every value.

    Args:
        site: the number from 1, or one of the names of ``site_hosts``.
        directory: made where it is missing; the three files are overwritten.

    Raises:
        ValueError: there is no such site.
    """
    host = _host(site) if isinstance(site, int) else site
    original = _original(host)
    source = resources.files("esgf_gossip.demo").joinpath("sites", original)
    properties = source.joinpath("esgf.properties").read_text(encoding="utf-8")
    if host != original:
        properties = "".join(_renamed(line, original, host) for line in properties.splitlines(keepends=True))
    files = SiteFiles(directory / "esgf.properties", directory / "config_type", directory / "groups.txt")
    directory.mkdir(parents=True, exist_ok=True)
    files.properties.write_text(properties, encoding="utf-8")
    files.config_type.write_bytes(source.joinpath("config_type").read_bytes())
    (directory / "groups.txt").write_bytes(source.joinpath("groups.txt").read_bytes())
    return files


def _host(number: int) -> str:
    if number < 1:
        raise ValueError(f"there is no demo site {number}; they are numbered from 1")
    original = _HOSTS[(number - 1) % len(_HOSTS)]
    return original if number <= len(_HOSTS) else f"n{number}.{original}"


def _original(host: str) -> str:
    if host in _HOSTS:
        return host
    number, _, original = host.partition(".")
    if original not in _HOSTS or not number.startswith("n") or not number[1:].isdecimal():
        raise ValueError(f"there is no demo site {host!r}; see site_hosts()")
    return original


def _renamed(line: str, original: str, host: str) -> str:
    key, sign, value = line.partition("=")
    return f"{key}{sign}{value.replace(original, host)}"
