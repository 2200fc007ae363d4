"""
Private keys on disk: made once, never overwritten, never readable by others, never inside git.

The only module that reads or writes a private key. Certificates are elsewhere.
"""

from __future__ import annotations

import os
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from esgf_gossip.files import create_file
from esgf_gossip.trust.errors import TrustError

KEY_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
PASSPHRASE_CHARACTERS_MIN: Final = 12
_KEY_BYTES_MAX: Final = 64 * 1024


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key: one for TLS and for digests, told apart by the context that is signed."""
    return ec.generate_private_key(ec.SECP256R1())


def write_key(path: Path, key: ec.EllipticCurvePrivateKey, passphrase: bytes | None) -> None:
    """
    Write a new private key, encrypted if there is a passphrase.

    Raises:
        TrustError: E-EXISTS, E-GIT, E-FILE; nothing was written.
    """
    refuse_existing(path)
    refuse_git(path)
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    try:
        private_folder(path.parent)
        create_file(path, content, KEY_MODE)
    except FileExistsError:
        refuse_existing(path)
        raise
    except OSError as error:
        raise TrustError("E-FILE", f"{path} cannot be written: {error.strerror}") from None


def private_folder(folder: Path) -> None:
    """Make a folder of private keys: 0700 whatever the umask; an existing one keeps its mode."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=FOLDER_MODE)
        folder.chmod(FOLDER_MODE)


def refuse_existing(path: Path) -> None:
    """
    Refuse a name that is taken, by a dangling symbolic link too.

    Raises:
        TrustError: E-EXISTS.
    """
    if not os.path.lexists(path):
        return
    made = datetime.fromtimestamp(path.lstat().st_mtime, UTC).date().isoformat()
    raise TrustError(
        "E-EXISTS",
        f"{path} exists, created {made}",
        "keys are never overwritten",
        "a new request for the same key: cert request --same-key; a new key: move the old one away first",
    )


def read_key(path: Path, passphrase: bytes | None = None) -> ec.EllipticCurvePrivateKey:
    """
    Read a private key that only its owner can have read.

    Raises:
        TrustError: E-NOTFOUND, E-LINK, E-OWNER, E-MODE, E-FILE of the file;
            E-PASSPHRASE; E-KEY, E-KEYTYPE of its content.
    """
    content = read_private(path)
    try:
        key = serialization.load_pem_private_key(content, passphrase)
    except TypeError:
        # The library's way to say: a passphrase where none is needed, or none where one is.
        if passphrase is not None:
            return read_key(path)
        raise TrustError(
            "E-PASSPHRASE", f"{path} is encrypted", remedy="give --passphrase-file or --passphrase-fd"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        if b"ENCRYPTED" in content and passphrase is not None:
            raise TrustError("E-PASSPHRASE", f"wrong passphrase for {path}") from None
        raise TrustError(
            "E-KEY", f"{path} holds no complete private key (file has {len(content)} bytes)"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustError(
            "E-KEYTYPE", f"{path} is not a P-256 key", remedy="make one with trust-admin cert request"
        )
    return key


def read_ca_key(
    path: Path, certificate: x509.Certificate, passphrase: bytes | None
) -> ec.EllipticCurvePrivateKey:
    """
    Read the private key of a CA's certificate.

    Raises:
        TrustError: as ``read_key``; E-KEYPAIR if it is another's.
    """
    if not os.path.lexists(path):
        raise TrustError(
            "E-NOTFOUND", f"{path} does not exist", remedy="name the folder of the CA keys with --private"
        )
    key = read_key(path, passphrase)
    if key.public_key() != certificate.public_key():
        raise TrustError("E-KEYPAIR", f"{path} does not belong to {certificate.subject.rfc4514_string()}")
    return key


def read_private(path: Path) -> bytes:
    """
    Read a private file that only its owner can have read.

    Raises:
        TrustError: E-NOTFOUND, E-LINK, E-OWNER, E-MODE, E-FILE.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise TrustError(
            "E-NOTFOUND", f"{path} does not exist", remedy="make it with trust-admin cert request"
        ) from None
    except OSError as error:
        if path.is_symlink():
            raise TrustError(
                "E-LINK", f"{path} is a symbolic link", remedy="put the key itself there"
            ) from None
        raise TrustError(
            "E-FILE", f"{path} cannot be read: {error.strerror}", remedy="run as the user of the daemon"
        ) from None
    try:
        # Of the open file, not of the name: what is checked is what is read.
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise TrustError("E-FILE", f"{path} is not a regular file")
        mode = stat.S_IMODE(state.st_mode)
        if mode & 0o077:
            raise TrustError("E-MODE", f"{path} is {mode:04o}, must be 0600", remedy=f"chmod 600 {path}")
        if state.st_uid not in (0, os.geteuid()):
            raise TrustError(
                "E-OWNER",
                f"{path} belongs to user {state.st_uid}",
                remedy="run as that user (sudo -u), or chown the key",
            )
        return os.read(descriptor, _KEY_BYTES_MAX)
    except OSError as error:
        raise TrustError("E-FILE", f"{path} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)


def refuse_git(path: Path) -> None:
    """
    Refuse to write a private file where git could pick it up.

    Raises:
        TrustError: E-GIT: inside a work tree and not ignored there, or git
            cannot be asked.
    """
    folder = path.absolute().parent
    while not folder.is_dir():
        folder = folder.parent
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return
    command = ["git", "-C", str(folder), "check-ignore", "--quiet", "--no-index", "--", str(path.absolute())]
    try:
        code = subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode
    except OSError:
        code = -1
    if code != 0:
        raise TrustError(
            "E-GIT",
            f"{path} is inside a git work tree and git does not ignore it",
            remedy=f"name a folder outside, or add {path.name} to .gitignore",
        )


def check_passphrase(passphrase: bytes) -> bytes:
    """
    Refuse a passphrase for a new CA key that is too short to resist guessing.

    Raises:
        TrustError: E-PASSPHRASE.
    """
    if len(passphrase.decode("utf-8", "replace")) < PASSPHRASE_CHARACTERS_MIN:
        raise TrustError(
            "E-PASSPHRASE",
            f"the passphrase has fewer than {PASSPHRASE_CHARACTERS_MIN} characters",
            remedy="take six random words",
        )
    return passphrase
