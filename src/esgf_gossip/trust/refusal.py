"""
Why a TLS connection ended, in one precise line.

OpenSSL says "certificate verify failed" on one side and an alert's name on the
other; the reason behind is ours to keep. Texts only, no verdicts.
Source: docs/trust.md, the table of what each side sees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost

from esgf_gossip.trust.errors import TrustError

# What a peer means by an alert in our handshakes, where the alert's name says too little.
_ALERTS: Final[Mapping[str, str]] = {
    "internal error": "it refuses our certificate's names or profile, or has a fault",
    "certificate expired": "our certificate, or its CRL, is too old for it",
    "bad certificate": "it refuses our certificate",
    "certificate unknown": "it refuses our certificate",
    "unknown ca": "it does not trust our root, or holds no CRL of our issuer",
    "certificate revoked": "our certificate is revoked",
    "certificate required": "it wants a certificate and got none",
    "no application protocol": "it does not speak our protocol",
    "protocol version": "it speaks no TLS version that we speak",
    "decrypt error": "a signature or CRL did not check there",
    "unsupported certificate": "our certificate is not for this use",
}

_OURS: Final[Mapping[str, str]] = {
    "peer did not return a certificate": "the peer sent no certificate",
    "http request": "not TLS: plain HTTP",
    "https proxy request": "not TLS: a proxy request",
    "wrong version number": "not TLS",
    "packet length too long": "not TLS",
    "bad record type": "not TLS",
    "unsupported protocol": "the peer speaks no TLS 1.3",
    "no application protocol": "the peer does not speak our protocol (ALPN)",
    "unexpected eof while reading": "the peer closed the connection without a word",
    "certificate verify failed": "the peer's certificate is refused",
}


class TlsRefusal(SSL.Error):
    """
    Carry our own reason out of a callback of OpenSSL.

    A subclass of SSL.Error raised there arrives unchanged in connectionLost,
    and the peer still gets an alert.
    """

    def __init__(self, error: TrustError) -> None:
        super().__init__([("trust", "", str(error))])
        self.error: Final = error


def refusal_reason(error: BaseException) -> str:
    """Return one line for what ``connectionLost`` delivered, as precise as can be known here."""
    if isinstance(error, TlsRefusal):
        return error.error.text
    if isinstance(error, TrustError):
        return error.text
    if isinstance(error, SSL.SysCallError):
        return "the peer closed the connection without a word"
    if isinstance(error, SSL.Error):
        return _of_openssl(error)
    if isinstance(error, ConnectionDone):
        return "the peer closed the connection"
    if isinstance(error, ConnectionLost):
        return "the connection was lost"
    return f"{type(error).__name__}: {error}"


def _of_openssl(error: SSL.Error) -> str:
    records = error.args[0] if error.args and isinstance(error.args[0], (list, tuple)) else []
    reasons = [str(record[-1]) for record in records if isinstance(record, tuple) and record]
    for reason in reasons:
        alert = re.search(r"alert (.+)$", reason)
        if alert:
            meaning = _ALERTS.get(alert[1], "")
            return f"peer sent alert: {alert[1]}" + (f" ({meaning})" if meaning else "")
    for reason in reasons:
        if reason in _OURS:
            return _OURS[reason]
    return "TLS error: " + (", ".join(dict.fromkeys(reasons)) or "without a reason")
