"""
The opened secrets of a node: one file each, 0600 in 0700, and what is known of their versions.

``.opened.json`` says which version of each name was opened, and which was told to the hook; versions never fall.
Source: docs/trust.md, "Secrets".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from esgf_gossip.files import replace_file
from esgf_gossip.trust import keys
from esgf_gossip.trust.errors import TrustError
from esgf_gossip.trust.folders import locked
from esgf_gossip.trust.sealing import check_secret_name

SECRETS_FOLDER: Final = "secrets"
# No secret has a name that begins like this.
STATE_FILE: Final = ".opened.json"


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

    def keep(self, name: str, version: int, plaintext: bytes) -> bool:
        """
        Write a secret and its version, the secret first; False where that version or a higher one is here.

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
                keys.private_folder(self.folder)
                replace_file(self.path(name), plaintext, 0o600)
                self._write({**state, name: {**known, "version": version}})
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

    def _state(self) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / STATE_FILE).read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise TrustError(
                "E-FILE", f"{self.folder / STATE_FILE} cannot be read: {type(error).__name__}"
            ) from None
        return content if isinstance(content, dict) else {}

    def _write(self, state: dict[str, Any]) -> None:
        replace_file(self.folder / STATE_FILE, json.dumps(state, sort_keys=True).encode(), 0o600)
