"""
The daemon with a tap on what it says to other nodes: ``python -P tapped_daemon.py run --config FILE``.

All bytes that go into TLS, in whatever protocol, are written into ``$TAP_FOLDER``, a file for each peer; so are the
texts before they are compressed, for who has the session keys could expand them. A real daemon has no such switch.
"""

import os
import sys
from pathlib import Path

from cryptography import x509
from twisted.protocols import tls

from esgf_gossip.cli.main import main
from esgf_gossip.core import packing

FOLDER = Path(os.environ["TAP_FOLDER"])
FOLDER.mkdir(parents=True, exist_ok=True)


def _peer(connection):
    certificate = connection.getPeerCertificate()
    if certificate is None:
        return "unknown"
    names = certificate.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.DNSName)[0]


def _write(name, data):
    with (FOLDER / name).open("ab") as tap:
        tap.write(bytes(data) + b"\n")


def _tap():
    """Hear, from now on, what is handed to TLS; whoever receives it is tapped where it is sent."""
    write, deflated = tls.TLSMemoryBIOProtocol.write, packing.deflated

    def tapped_write(protocol, data):
        _write(f"to-{_peer(protocol)}", data)
        return write(protocol, data)

    def tapped_sequence(protocol, parts):
        return tapped_write(protocol, b"".join(parts))

    def tapped_deflated(data):
        _write("to-whoever-asks", data)
        return deflated(data)

    tls.TLSMemoryBIOProtocol.write = tapped_write
    tls.TLSMemoryBIOProtocol.writeSequence = tapped_sequence
    packing.deflated = tapped_deflated


if __name__ == "__main__":
    _tap()
    sys.exit(main())
