"""A puppet that holds a log and answers for it, rightly or as it is told to lie. No test lives here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from esgf_gossip.core import effects as fx
from esgf_gossip.core.log_serving import answer_leaves, answer_proof, pages, proof
from esgf_gossip.core.logs import Log
from esgf_gossip.core.merkle import Tree
from esgf_gossip.core.messages import AskLeaves, AskProof, Feature, Message, Ping
from esgf_gossip.core.model import Link, LogRef
from helpers.bench import Bench, Line, a_line

X = "x.example.org"
LOG = "datasets"
LOGS = (int(Feature.LOGS),)


def events(low: int, high: int, what: str = "event") -> list[bytes]:
    """Return events that tell their number."""
    return [f"{what} {number}".encode() for number in range(low, high)]


@attrs.define
class Library:
    """All leaves of one log of X, as one who holds them serves them; ``born`` as in the digest asked about."""

    leaves: list[bytes]
    born: int = 1
    origin: str = X
    trees: dict[int, Tree] = attrs.field(factory=dict)

    def tree(self, size: int) -> Tree:
        if size not in self.trees:
            self.trees[size] = Tree().extended(self.leaves[:size])
        return self.trees[size]

    def ref(self, size: int | None = None, first_retained: int = 0) -> LogRef:
        """Return what a digest says of the log at this size, all of it by default."""
        size = len(self.leaves) if size is None else size
        return LogRef(self.born, size, self.tree(size).root, first_retained)

    def line(self, sequence: int, size: int | None = None, epoch: int | None = None, **changes: Any) -> Line:
        """Return a line of the origin that tells of the log at this size."""
        ref = self.ref(size, changes.pop("first_retained", 0))
        return a_line(
            self.origin, self.born if epoch is None else epoch, sequence, logs={LOG: ref}, **changes
        )

    def answers(self, question: AskLeaves | AskProof) -> list[Message]:
        """Return what a node that holds the log at exactly the size asked about says."""
        size = question.size if isinstance(question, AskLeaves) else question.second_size
        log = Log(question.born, self.tree(size), None)
        if isinstance(question, AskLeaves):
            order = answer_leaves(Link(0), question, log)
            if isinstance(order, fx.Send):
                return [order.message]
            return list(pages(order, self.leaves[order.start : order.end]))
        sent = answer_proof(Link(0), question, log)
        if isinstance(sent, fx.Send):
            return [sent.message]
        return [proof(sent, self.leaves[sent.low : sent.high])]


def serve(bench: Bench, links: dict[Link, Library], most: int = 100) -> list[Message]:
    """Let puppets answer what the node asks them until it asks nothing more; return the questions."""
    asked: list[Message] = []
    for _ in range(most):
        questions = [
            (send.link, send.message)
            for send in bench.sent
            if send.link in links and isinstance(send.message, AskLeaves | AskProof)
        ]
        bench.sent = [send for send in bench.sent if (send.link, send.message) not in questions]
        if not questions:
            break
        for link, question in questions:
            asked.append(question)
            for answer in links[link].answers(question):
                if link not in bench.closed:
                    bench.hear(link, answer)
    return asked


def wait(bench: Bench, seconds: float, *links: Link) -> None:
    """Let time pass while the puppets at these links say that they live."""
    while seconds > 0:
        for link in links:
            bench.hear(link, Ping(1, 1))
        bench.pass_time(min(4.0, seconds))
        seconds -= 4.0


def kept(bench: Bench, origin: str = X) -> Sequence[bytes]:
    """Return the leaves that are on the node's disk, in order."""
    return [leaf for _, leaf in sorted(bench.disk.leaves.get((origin, LOG), {}).items())]


def hold(bench: Bench, link: Link, library: Library, size: int, sequence: int = 1) -> None:
    """Let the node take the line at this size and all leaves to it."""
    bench.hear(link, library.line(sequence, size).answer(0))
    serve(bench, {link: library})
    assert kept(bench) == library.leaves[:size]


def asked(bench: Bench, link: Link, kind: type = AskLeaves) -> list[Any]:
    """Return the questions of a kind since last asked."""
    return bench.said(link, kind)
