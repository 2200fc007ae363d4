"""
The opened secrets of a node: one file each, 0600 in 0700, and what is known of their versions.

``.opened.json`` says which version of each name was opened, and which was told to the hook; versions never fall.
Source: docs/trust.md, "Secrets".
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from esgf_gossip.files import read_file, replace_file
from esgf_gossip.trust import keys
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import locked
from esgf_gossip.trust.sealing import check_secret_name

SECRETS_FOLDER: Final = "secrets"
# No secret has a name that begins like this.
STATE_FILE: Final = ".opened.json"

_STATE_BYTES: Final = 4 * 1024 * 1024
_KEY_ID: Final = re.compile(r"([0-9a-f]{64})?")


class SecretStore:
    """The folder ``secrets/`` of a trust directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.folder: Final = directory / SECRETS_FOLDER

    def path(self, name: str) -> Path:
        """Return where the plaintext of a secret is, once it has been opened."""
        return self.folder / name

    def version(self, name: str) -> int:
        """Return the version that was opened, 0 for none."""
        return int(self._state().get(name, {}).get("version", 0))

    def receipts(self) -> list[tuple[str, int]]:
        """Return name and version of every secret that was opened here, sorted."""
        return sorted((name, int(one["version"])) for name, one in self._state().items())

    def untold(self) -> list[tuple[str, int]]:
        """Return name and version of secrets the hook has not been told of, sorted."""
        return sorted(
            (name, int(one["version"])) for name, one in self._state().items() if one["told"] < one["version"]
        )

    def key_ids(self) -> frozenset[bytes]:
        """Return the ids of the seal keys that the envelopes in force were sealed to."""
        return frozenset(bytes.fromhex(one["key"]) for one in self._state().values() if one.get("key"))

    def keep(self, name: str, version: int, plaintext: bytes, key_id: bytes = b"") -> bool:
        """
        Write a secret and its version, the secret first; False where that version or a higher one is here.

        Args:
            name: of the secret.
            version: of the envelope it came in.
            plaintext: the secret.
            key_id: the seal key it was sealed to.

        Raises:
            TrustError: E-NAME, E-FILE: the version before is still there.
        """
        check_secret_name(name)
        with locked(self._directory):
            state = self._state()
            known = state.get(name, {"version": 0, "told": 0})
            if version <= known["version"]:
                return False
            try:
                self._make_private()
                replace_file(self.path(name), plaintext, 0o600)
                self._write({**state, name: {**known, "version": version, "key": key_id.hex()}})
            except OSError as error:
                raise TrustError(
                    "E-FILE", f"{error.filename or self.folder} cannot be written: {error.strerror}"
                ) from None
        return True

    def note_told(self, name: str, version: int) -> None:
        """
        Remember that the hook has done its work for a version.

        Raises:
            TrustError: E-FILE.
        """
        with locked(self._directory):
            state = self._state()
            if name in state:
                try:
                    self._write({**state, name: {**state[name], "told": max(version, state[name]["told"])}})
                except OSError as error:
                    raise TrustError("E-FILE", f"{self.folder} cannot be written: {error.strerror}") from None

    def _make_private(self) -> None:
        keys.private_folder(self.folder)
        if self.folder.stat().st_mode & 0o077:
            self.folder.chmod(keys.FOLDER_MODE)
        # Under the lock nobody else writes: these are of a run that was ended in the middle.
        for left in self.folder.glob(".*.tmp"):
            left.unlink()

    def _state(self) -> dict[str, Any]:
        path = self.folder / STATE_FILE
        try:
            content = json.loads(read_file(path, _STATE_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise TrustError("E-FILE", f"{path} cannot be read: {type(error).__name__}") from None
        if type(content) is not dict or not all(_is_known(one) for one in content.values()):
            raise TrustError(
                "E-FILE",
                f"{path} is damaged",
                remedy="move it away: what the federation holds is opened again",
            )
        return content

    def _write(self, state: dict[str, Any]) -> None:
        replace_file(self.folder / STATE_FILE, json.dumps(state, sort_keys=True).encode(), 0o600)


def _is_known(one: object) -> bool:
    return (
        type(one) is dict
        and all(type(one.get(key)) is int for key in ("version", "told"))
        and type(one.get("key", "")) is str
        and _KEY_ID.fullmatch(one.get("key", "")) is not None
    )
