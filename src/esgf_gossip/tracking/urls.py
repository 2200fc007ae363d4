"""
What a logged URL names: host, path, and, where its folders say so beyond doubt, the dataset version and file.

A wrong answer would tell somebody of data that is not his, so what is not sure is no answer: folders must have the
form of their project, and the file's own name must say the same as they do.
Source: docs/tracking.md, "Who downloaded what".
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote

import attrs

from esgf_gossip.tracking.identity import DatasetId, IdentityError, make_dataset

URL_CHARACTERS: Final = 2048
PATH_KEY_BYTES: Final = 16

_SCHEME: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
# Transfers between endpoints: globus:UUID/path.
_GLOBUS: Final = re.compile(r"globus:(?P<host>[0-9A-Fa-f-]{1,64})(?P<path>/.*)", re.DOTALL)
_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_PORT: Final = re.compile(r":[0-9]{1,5}\Z")
# One catalog, two services: what follows is the same path, the one that old logs hold alone.
_SERVICES: Final = ("/thredds/fileServer/", "/thredds/dodsC/")
# Answers of OPeNDAP with data; .das, .dds and .html only describe.
_DATA_ANSWERS: Final = (".nc.dods", ".nc.ascii", ".nc.asc")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,250}\.nc4?")
_FACET: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_+-]{0,98}[A-Za-z0-9])?"
_FACETS: Final = re.compile(rf"{_FACET}(?:/{_FACET})*")
_VERSION: Final = re.compile(r"v[0-9]{1,8}")
_DATED: Final = re.compile(r"(?:19|20)[0-9]{6}")
_VARIANT: Final = re.compile(r"(?:[a-z][A-Za-z0-9]*-)?r[0-9]+i[0-9]+p[0-9]+f[0-9]+")
_ENSEMBLE: Final = re.compile(r"r[0-9]+i[0-9]+p[0-9]+")
# A site whose CMIP6 folders lack the name of the project.
_BARE_CMIP6: Final = re.compile(r"gfdl_dataroot[0-9]+")
_CMIP5_PRODUCTS: Final = frozenset({"output", "output1", "output2", "unsolicited"})
_CMIP5_FREQUENCIES: Final = frozenset({"yr", "mon", "monClim", "day", "6hr", "3hr", "subhr", "fx"})
_CMIP5_REALMS: Final = frozenset(
    {"aerosol", "atmos", "atmosChem", "land", "landIce", "ocean", "ocnBgchem", "seaIce"}
)
# Copies that are published once more under another project keep the folders of the first.
_REPUBLISHED: Final = ("c3s", "cp4cds", "adjust", "bias")
_DAY_MS: Final = 86_400_000


@attrs.frozen
class Place:
    """
    Where a URL points to, in one spelling for all ways to write it.

    Args:
        host: lower case, without port; of Globus the endpoint, of S3 the bucket; empty: the log has only the path.
        path: decoded, without query, and below ``thredds/fileServer/`` where it has that.
    """

    host: str
    path: str

    @property
    def name(self) -> str:
        """The file's name without any folder."""
        return self.path.rpartition("/")[2]

    @property
    def key(self) -> bytes:
        """A short hash of the path, under which it is kept."""
        return hashlib.blake2b(self.path.encode(), digest_size=PATH_KEY_BYTES).digest()


def read_url(text: str) -> Place | None:
    """Read a URL, or the path below ``fileServer/`` that logs held before 2016; None: it is neither."""
    if not 0 < len(text) <= URL_CHARACTERS:
        return None
    text = text.strip().partition("|")[0].partition("#")[0].partition("?")[0]
    host = ""
    if known := _GLOBUS.fullmatch(text):
        host, path = known["host"].lower(), known["path"]
    elif known := _SCHEME.fullmatch(text):
        server, _, path = known["rest"].partition("/")
        host = _PORT.sub("", server.rpartition("@")[2]).lower()
        if not _HOST.fullmatch(host):
            return None
    elif ":" in text.partition("/")[0]:
        return None
    else:
        path = text
    try:
        path = unquote(path, errors="strict")
    except UnicodeDecodeError:
        return None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or not path.isprintable():
        return None
    path = "/" + "/".join(parts)
    for service in _SERVICES:
        before, found, below = path.partition(service)
        path = f"/{below}" if found else before
    if path.endswith(_DATA_ANSWERS):
        path = path.rpartition(".")[0]
    return Place(host, path[1:]) if len(path) > 1 else None


def dataset_of(place: Place) -> DatasetId | None:
    """Return the dataset version whose file lies there by the folders of its project; None where that is not sure."""
    folder, _, name = place.path.rpartition("/")
    lower = folder.lower()
    if not _FILE.fullmatch(name) or any(word in lower for word in _REPUBLISHED):
        return None
    folders = folder.split("/")
    words = name.rsplit(".", 1)[0].split("_")
    for layout in _LAYOUTS:
        found = layout.read(folders, words)
        if found is not None:
            return found
    return None


def could_be(dataset: DatasetId, fetched_ms: int) -> bool:
    """Tell whether a version may have been there at a time: one that is a date was not before that day."""
    if not _DATED.fullmatch(dataset.version):
        return True
    try:
        day = dt.datetime.strptime(dataset.version, "%Y%m%d").replace(tzinfo=dt.UTC)
    except ValueError:
        return True
    return fetched_ms >= day.timestamp() * 1000 - _DAY_MS


@attrs.frozen
class _Layout:
    """
    The folders of one project, from its own down to the version.

    Args:
        folder: the project's name as a folder, lower case.
        project: and as the first facet of its datasets.
        facets: how many folders stand between the two.
        names: given the facets, the words that the file's name begins with; None: one of them is none of the project.
        master: given the facets, those of the dataset's name.
        below: whether the variable's folder stands below the version.
    """

    folder: str
    project: str
    facets: int
    names: Callable[[Sequence[str]], Sequence[str] | None]
    master: Callable[[Sequence[str]], Sequence[str]] = tuple
    below: bool = False

    def read(self, folders: Sequence[str], words: Sequence[str]) -> DatasetId | None:
        """Return the dataset of a file in these folders; None where it is none of this layout."""
        variable: str | None = None
        if self.below and folders:
            variable, folders = folders[-1], folders[:-1]
        if len(folders) < self.facets + 2 or not _VERSION.fullmatch(folders[-1]):
            return None
        facets = folders[-1 - self.facets : -1]
        top = folders[-2 - self.facets]
        is_bare = self.folder == "cmip6" and _BARE_CMIP6.fullmatch(top)
        if (top.lower() != self.folder and not is_bare) or not _FACETS.fullmatch("/".join(facets)):
            return None
        said = self.names([*facets, variable] if variable is not None else facets)
        if said is None or list(words[: len(said)]) != list(said):
            return None
        try:
            return make_dataset(".".join((self.project, *self.master(facets))), folders[-1])
        except IdentityError:
            return None


def _cmip6(facets: Sequence[str]) -> Sequence[str] | None:
    _, _, source, experiment, member, table, variable, grid = facets
    return (variable, table, source, experiment, member, grid) if _VARIANT.fullmatch(member) else None


def _cmip5(facets: Sequence[str]) -> Sequence[str] | None:
    product, _, model, experiment, frequency, realm, table, ensemble, variable = facets
    is_sound = (
        product in _CMIP5_PRODUCTS
        and frequency in _CMIP5_FREQUENCIES
        and realm in _CMIP5_REALMS
        and _ENSEMBLE.fullmatch(ensemble)
    )
    return (variable, table, model, experiment, ensemble) if is_sound else None


def _cordex(facets: Sequence[str]) -> Sequence[str] | None:
    product, domain, institute, driver, experiment, ensemble, rcm, rcm_version, frequency, variable = facets
    if product != "output" or not _ENSEMBLE.fullmatch(ensemble):
        return None
    # The file's name always has the institute before the model; folders have it or not.
    model = rcm if rcm.startswith(f"{institute}-") else f"{institute}-{rcm}"
    return variable, domain, driver, experiment, ensemble, model, rcm_version, frequency


def _cordex_master(facets: Sequence[str]) -> Sequence[str]:
    # The dataset's name never has it.
    return *facets[:6], facets[6].removeprefix(f"{facets[2]}-"), *facets[7:]


def _cordex_cmip6(facets: Sequence[str]) -> Sequence[str] | None:
    _, domain, institute, driver, experiment, variant, source, version, frequency, variable = facets
    if not _VARIANT.fullmatch(variant):
        return None
    return variable, domain, driver, experiment, variant, institute, source, version, frequency


def _obs4mips(facets: Sequence[str]) -> Sequence[str] | None:
    _, source, frequency, variable, _ = facets
    return variable, frequency, source


def _input4mips(facets: Sequence[str]) -> Sequence[str] | None:
    return facets[6], "input4MIPs"


def _cmip7(facets: Sequence[str]) -> Sequence[str] | None:
    era, _, _, source, experiment, variant, region, frequency, variable, brand, grid = facets
    if era != "CMIP7" or not _VARIANT.fullmatch(variant):
        return None
    return variable, brand, frequency, region, grid, source, experiment, variant


_LAYOUTS: Final = (
    _Layout("cmip6", "CMIP6", 8, _cmip6),
    _Layout("cmip6plus", "CMIP6Plus", 8, _cmip6),
    _Layout("cmip5", "cmip5", 8, _cmip5, below=True),
    _Layout("cordex", "cordex", 10, _cordex, _cordex_master),
    _Layout("cordex-cmip6", "CORDEX-CMIP6", 10, _cordex_cmip6),
    _Layout("obs4mips", "obs4MIPs", 5, _obs4mips),
    _Layout("input4mips", "input4MIPs", 8, _input4mips),
    _Layout("mip-drs7", "MIP-DRS7", 11, _cmip7),
)
