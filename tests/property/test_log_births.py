"""An honest node never proves itself a liar: crashes, backups, lost disks and clones, with appends anywhere between."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from esgf_gossip.core import effects as fx
from esgf_gossip.core.logs import check_rewrite, contradicts
from esgf_gossip.core.merkle import Tree, consistency_proof
from esgf_gossip.core.model import RewriteEvidence
from esgf_gossip.sim.disk import Disk
from helpers.bench import OWN, Bench
from helpers.library import LOG, kept


class CutDisk(Disk):
    """A disk that takes only so many effects and then is gone, as after kill -9."""

    room = 10**9

    def apply(self, effect):
        if isinstance(effect, fx.Persist):
            self.room -= 1
            if self.room >= 0:
                super().apply(effect)


def a_disk(before, room):
    """Return a disk with the content of another."""
    held = before.copy()
    disk = CutDisk(held.epoch, held.lines, held.bodies, held.forks, held.logs, held.leaves)
    disk.room = room
    return disk


runs = st.lists(
    st.tuples(
        st.sampled_from(["same", "same", "backup", "lost"]),
        st.integers(0, 12),
        st.lists(st.integers(1, 4), max_size=4),
        st.integers(-(10**12), 10**12),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=150)
@given(runs)
def test_no_two_digests_of_an_honest_node_ever_contradict(schedule):
    """Whatever was sent by whatever run from whatever disk: under one birth there is one history."""
    disk, backups, said, numbers = Disk(), [Disk()], [], itertools.count()
    for fate, room, appends, clock_ms in schedule:
        start = {"same": disk, "backup": backups[len(backups) // 2], "lost": Disk()}[fate]
        cut = a_disk(start, 10**9)
        bench = Bench(disk=cut, wall_ahead_ms=clock_ms, seed=next(numbers))
        cut.room = room
        for count in appends:
            # A digest is sent after it was persisted; a process that dies first has told nobody.
            bench.do(bench.node.append(LOG, [f"{next(numbers)}".encode() for _ in range(count)], bench.at()))
            if cut.room < 0:
                break
            said.append((bench.node.registry.table.line(OWN), tuple(kept(bench, OWN))))
        disk = cut
        backups.append(cut.copy())
    for (one, its_leaves), (other, other_leaves) in itertools.permutations(said, 2):
        before, after = one.digest.logs[LOG], other.digest.logs[LOG]
        assert Tree().extended(its_leaves).root == before.root
        if before.born == after.born and one.order < other.order:
            assert not contradicts(before, after)
            assert its_leaves == other_leaves[: len(its_leaves)]
        if 0 < before.size < after.size:
            hashes = consistency_proof(
                before.size,
                after.size,
                lambda low, high, whole=other_leaves: Tree().extended(whole[low:high]).root,
            )
            assert not check_rewrite(RewriteEvidence(one.signed, other.signed, LOG, hashes))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 3)), min_size=2, max_size=8), st.integers(0, 99))
def test_clones_of_one_disk_never_share_a_birth(appends, seed):
    """Two machines that start in one second from one disk speak of two births of the log."""
    first = Bench(seed=seed)
    first.do(first.node.append(LOG, [b"common"], first.at()))
    clones = [Bench(disk=first.disk.copy(), seed=seed + number + 1) for number in range(2)]
    for which, count in appends:
        clone = clones[which]
        clone.do(clone.node.append(LOG, [f"{which}".encode()] * count, clone.at()))
    births = {clone.node.registry.table.line(OWN).digest.logs[LOG].born for clone in clones}
    assert len(births) == 2
