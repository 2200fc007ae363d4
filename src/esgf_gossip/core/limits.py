"""
Every bound on what comes from outside, each with its reason.

Only constants live here. Those marked *protocol* decide what is accepted, so
all nodes must agree on them: they change with the protocol version alone.
Source: docs/protocol.md.
"""

from __future__ import annotations

from typing import Final

PROTOCOL_VERSION_MIN: Final = 1
PROTOCOL_VERSION_MAX: Final = 1

# protocol: a frame is parsed whole in memory; 128 KiB holds two full entries.
FRAME_BYTES: Final = 128 * 1024
# protocol: digests are compared and stored by every node.
DIGEST_BYTES: Final = 16 * 1024
DIGEST_ENTRIES: Final = 64
DIGEST_LOGS: Final = 8
ENTRY_BYTES: Final = 64 * 1024
ENTRIES_TOTAL_BYTES: Final = 512 * 1024
# protocol: leaf, issuer and room for one more level; a P-256 certificate is about 900 bytes.
CHAIN_CERTIFICATES: Final = 4
CHAIN_BYTES: Final = 16 * 1024
# protocol: an event names things, it does not carry them; a block of the largest leaves is 16 MiB.
LEAF_BYTES: Final = 4 * 1024
# protocol: ECDSA P-256 in DER is at most 72 bytes.
SIGNATURE_BYTES: Final = 80
# protocol: RFC 1035 host names; entry and log names are ours.
HOST_CHARACTERS: Final = 253
NAME_CHARACTERS: Final = 64
# protocol: a digest is valid for at most a week and never dated more than ten minutes ahead.
DIGEST_LIFETIME_MS: Final = 7 * 24 * 3600 * 1000
CLOCK_AHEAD_MS: Final = 10 * 60 * 1000
# protocol: epochs hold (Unix seconds << 20), far below 2**63 until the year 200,000.
COUNTER_MAX: Final = 2**63 - 1
# protocol: the last millisecond of the year 9999, the end of calendars in most libraries.
TIME_MS_MAX: Final = 253_402_300_799_999

# msgpack reserves memory by declared lengths, one level inside the other: 128 KiB could ask for 8 GB.
# Far above MESSAGE_HEADS, so that arrays may grow.
ARRAY_ITEMS: Final = 8192
# One message names at most so many heads, hashes, bodies: bounds the work of a frame.
MESSAGE_HEADS: Final = 1024
MESSAGE_HASHES: Final = 64
MESSAGE_BODIES: Final = 64
MESSAGE_FEATURES: Final = 32
MESSAGE_KINDS: Final = 16
MESSAGE_LEAVES: Final = 4096
# Leaves of one message, packed but not compressed: with their hashes they fit into a frame either way.
LEAVES_PACKED_BYTES: Final = 120 * 1024
# Left-hand, right-hand or proof hashes: one a bit of a size, and one.
LOG_HASHES: Final = 64
TEXT_CHARACTERS: Final = 256
# Heads whose fingerprints stand in one comparison: 64 KiB of them, half a frame; what is beyond waits for the next.
SUMMARY_HEADS: Final = 16 * 1024

# Hashes of certificates in one claim of fork lines, and hashes in one proof: those of a log have at most two paths.
MESSAGE_FORKS: Final = 1024
FORK_HASHES: Final = 128
# Proofs asked of one peer at the same time: a silent liar holds up only its own.
FORKS_PER_LINK: Final = 4
# Certificates a peer may claim proofs about beyond those we hold; and of the proofs it gave so many
# may prove nothing, two signatures each, before its claims are ignored.
FORK_CLAIMS_PER_LINK: Final = 1024
FORK_REFUSALS_PER_LINK: Final = 16
# protocol: a frame holds one trust object; a CRL of 3,000 entries, a bundle of 50 issuers.
TRUST_BODY_BYTES: Final = 120 * 1024
TRUST_KEY_CHARACTERS: Final = 360
# Trust objects held: a hundred nodes with thirty secrets each. What is beyond is refused, loudly.
TRUST_OBJECTS: Final = 4096
# Heads of trust objects in one message; with the longest keys they stay below a frame.
MESSAGE_TRUST: Final = 256
# Trust objects asked of one peer at the same time, keys it may claim beyond those we hold; and of the objects it
# gave so many may be refused before its claims are ignored until trust changes.
TRUST_PER_LINK: Final = 4
TRUST_CLAIMS_PER_LINK: Final = 4096
TRUST_REFUSALS_PER_LINK: Final = 64
# One visit by esgf-trust/1: pages a visitor may say, objects and bytes it gets at a time (of 64 that never read: 32 MiB);
# visits of one address a minute.
VISIT_PAGES: Final = 16
VISIT_OBJECTS: Final = 256
VISIT_BYTES: Final = 512 * 1024
VISITS_PER_MINUTE: Final = 30
# A peer may claim heads of so many origins beyond those we hold lines of.
UNKNOWN_CLAIMS_PER_PEER: Final = 4096
# Fetches that wait for answers at the same time, all peers together; the others queue.
FETCHES_AT_ONCE: Final = 64
# Of these, so many may wait for one peer: a silent liar leaves room for the others.
FETCHES_PER_LINK: Final = 16
# An honest peer ends one answer before it begins the next; each holds up to ENTRIES_TOTAL_BYTES.
ANSWERS_BEGUN_PER_PEER: Final = 4
# Links one peer may have at a time, those included whose hello is outstanding; the oldest goes first.
LINKS_PER_PEER: Final = 4
# Logs whose leaves are fetched at the same time, and of these from one peer: a silent one holds up few.
LOG_FETCHES_AT_ONCE: Final = 8
LOG_FETCHES_PER_LINK: Final = 2
# Leaves of one answer, half of what may wait on a link; the rest of a block is asked for again.
LEAVES_ANSWER_BYTES: Final = 2 * 1024 * 1024
# Leaves held in memory until their block can be verified, all fetches together.
LEAVES_BUFFER_BYTES: Final = 32 * 1024 * 1024
# Leaves taken of one origin without delay, and how many an hour after that.
LOG_LEAVES_FREE: Final = 1_000_000
LOG_LEAVES_PER_HOUR: Final = 20_000
# Digests of our own that one link may show us after another, each a signature to check.
OWN_DIGESTS_PER_LINK: Final = 8
# Verdicts remembered by hash, so that the same bytes are judged once (until trust changes).
VERDICTS_REMEMBERED: Final = 16 * 1024
# What one origin may publish; beyond, its newest line is fetched when it has its turn again. Only a delay.
ORIGIN_DIGESTS_PER_S: Final = 1.0
ORIGIN_DIGESTS_AT_ONCE: Final = 10
ORIGIN_BODY_BYTES_PER_MINUTE: Final = 64 * 1024
ORIGIN_BODY_BYTES_AT_ONCE: Final = 512 * 1024
# Signatures checked for one peer that brought nothing new; beyond, it is read more slowly. An honest peer has none.
WASTED_CHECKS_PER_S: Final = 500
# Bytes queued to one peer that does not read; beyond, the link is closed and heals by anti-entropy.
SEND_QUEUE_BYTES: Final = 4 * 1024 * 1024
# What one peer may make us work, in frames it sends and bytes of both directions; beyond, its links are read more slowly.
# At once: a fresh node that fetches 5,000 lines or 100,000 leaves is not slowed. A second: a flood costs some percent.
PEER_FRAMES_PER_S: Final = 2000
PEER_FRAMES_AT_ONCE: Final = 20_000
PEER_BYTES_PER_S: Final = 4 * 1024 * 1024
PEER_BYTES_AT_ONCE: Final = 64 * 1024 * 1024
# Connections whose TLS handshake or first message is outstanding, and their deadline.
PENDING_HANDSHAKES: Final = 64
HANDSHAKE_S: Final = 10.0
# Where all of these are taken, who has stalled for so long makes room: two round trips at any distance are enough.
HANDSHAKE_CROWDED_S: Final = 2.0
# protocol: subjects one observer reports on; five are usual, a few times that after half of all nodes died.
# So many, of the longest names, fit into an entry.
REPORTS_MOST: Final = 224
