"""Writers of documents without a node: each has a log, reads the others' as far as they are delivered, and writes."""

from esgf_gossip.documents.leaves import VersionLeaf, encode_body, encode_version, sha256_of, version_id
from esgf_gossip.documents.library import Library
from esgf_gossip.documents.names import parse_name, writer_role
from esgf_gossip.documents.writings import Writings

PROJECT = "CMIP6"
ROLES = frozenset({writer_role(PROJECT)})
NAME = parse_name(f"{PROJECT}/publisher/facets.ini")


def put_leaves(name, body, parents=(), time_ms=0):
    """Return the leaves of one version with its body, None: a deletion."""
    said = VersionLeaf(
        name,
        tuple(parents),
        time_ms,
        None if body is None else sha256_of(body),
        0 if body is None else len(body),
    )
    return [*(encode_body(body) if body else []), encode_version(said)]


class Writer:
    """One author: its log, and the library of what it has heard."""

    def __init__(self, name, roles=ROLES):
        self.name = name
        self.roles = roles
        self.log = []
        self.library = Library()
        self.library.put(Writings(name, roles))
        self.heard = {}

    def say(self, leaves):
        """Append leaves; returns the id of what the last would be."""
        for leaf in leaves:
            self.library.add(self.name, len(self.log), leaf)
            self.log.append(leaf)
        return version_id(self.name, self.log[-1])

    def put(self, name, body, parents=None, time_ms=0):
        """Write over all heads this writer knows, or over these parents."""
        document = self.library.get(name)
        if parents is None:
            parents = [] if document is None else [head.id for head in document.heads]
        return self.say(put_leaves(name, body, parents, time_ms))

    def hear(self, other, count=None):
        """Read on in another's log."""
        if self.library.writings(other.name) is None:
            self.library.put(Writings(other.name, other.roles))
        start = self.heard.get(other.name, 0)
        end = len(other.log) if count is None else min(start + count, len(other.log))
        for number in range(start, end):
            self.library.add(other.name, number, other.log[number])
        self.heard[other.name] = end


def read_all(writers, order=(), roles=None):
    """Return a library that heard the logs whole, interleaved as the numbers of ``order`` say."""
    library = Library()
    for writer in writers:
        library.put(Writings(writer.name, (roles or {}).get(writer.name, writer.roles)))
    places = dict.fromkeys(range(len(writers)), 0)
    for choice in order:
        number = choice % len(writers)
        if places[number] < len(writers[number].log):
            library.add(writers[number].name, places[number], writers[number].log[places[number]])
            places[number] += 1
    for number, writer in enumerate(writers):
        for place in range(places[number], len(writer.log)):
            library.add(writer.name, place, writer.log[place])
    return library


def picture(library):
    """Return all that a library says of documents, comparable."""
    return {
        name: (
            [head.id for head in document.heads],
            [(version, document.generation(version)) for version in document.history],
            document.is_conflict,
        )
        for name in library.names
        for document in [library.get(name)]
    }


def refusals(library):
    """Return what a library refuses, by author."""
    return {one.author: (one.refused_count, list(one.refusals)) for one in library.authors}
