"""Merkle trees against a slow obvious twin: the recursive definition of RFC 9162, over lists of leaves."""

import hashlib
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from esgf_gossip.core import merkle
from esgf_gossip.core.merkle import (
    BLOCK_LEAVES,
    EMPTY_ROOT,
    Tree,
    consistency_proof,
    consistency_roots,
    right_hashes,
    root_with_right,
)

# Ends of blocks and powers of two, one beside them, and what lies between.
LARGE = [4095, 4096, 4097, 8191, 8192, 8193, 12_288, 16_385, 20_000, 40_960]
few = settings(deadline=None, max_examples=60)
sizes = st.integers(1, 400)


def leaf(number):
    """Return a leaf that tells its number."""
    return f"leaf {number}".encode()


def leaves(low, high):
    """Return the leaves of a range."""
    return [leaf(number) for number in range(low, high)]


@cache
def slow_root(low, high):
    """MTH of RFC 9162, 2.1.1, as it stands there."""
    if low == high:
        return hashlib.sha256(b"").digest()
    if high - low == 1:
        return hashlib.sha256(b"\x00" + leaf(low)).digest()
    split = 1
    while split * 2 < high - low:
        split *= 2
    return hashlib.sha256(b"\x01" + slow_root(low, low + split) + slow_root(low + split, high)).digest()


def slow_proof(first, low, high, complete):
    """SUBPROOF of RFC 9162, 2.1.4.1, as it stands there."""
    if first == high - low:
        return [] if complete else [slow_root(low, high)]
    split = 1
    while split * 2 < high - low:
        split *= 2
    if first <= split:
        return [*slow_proof(first, low, low + split, complete), slow_root(low + split, high)]
    return [*slow_proof(first - split, low + split, high, False), slow_root(low, low + split)]


@cache
def tree(size):
    """Return the tree of the first leaves."""
    return Tree().extended(leaves(0, size))


def flipped(data, bit):
    """Return the bytes with one bit turned."""
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


# ----------------------------------------------------------------- roots


@few
@given(st.integers(0, 400), st.integers(0, 400))
def test_a_tree_has_the_root_of_the_definition_however_it_grew(first, more):
    """Appended in two steps or one, the root is MTH; the root of nothing is the hash of nothing."""
    grown = tree(first).extended(leaves(first, first + more))
    assert slow_root(0, first + more) == grown.root
    assert tree(first + more) == grown
    assert Tree().root == EMPTY_ROOT


@pytest.mark.parametrize("size", LARGE)
def test_the_roots_of_large_trees_and_of_their_blocks(size):
    """Around the ends of blocks the root is MTH, and every full block has its own."""
    assert slow_root(0, size) == tree(size).root
    expected = [slow_root(low, low + BLOCK_LEAVES) for low in range(0, size - BLOCK_LEAVES + 1, BLOCK_LEAVES)]
    assert expected == list(tree(size).blocks)


def test_known_roots_of_certificate_transparency():
    """The test vectors that other implementations of the RFC publish."""
    vectors = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    grown = Tree().extended([bytes.fromhex(vector) for vector in vectors])
    assert grown.root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@few
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20), st.integers(0, 7000))
def test_a_turned_bit_in_any_leaf_changes_the_root(content, bit):
    """No byte of any leaf is without a trace in the root."""
    number = bit % len(content)
    other = list(content)
    other[number] = flipped(content[number], bit) if content[number] else b"x"
    assert Tree().extended(content).root != Tree().extended(other).root


def test_a_leaf_that_looks_like_a_node_is_none():
    """The bytes of two children as one leaf give another root than the two."""
    two = Tree().extended([b"a", b"b"])
    forged = b"\x01" + merkle.leaf_hash(b"a") + merkle.leaf_hash(b"b")
    assert two.root != Tree().extended([forged]).root
    assert two.root != Tree().extended([forged[1:]]).root


# ----------------------------------------------------------------- blocks dropped


@pytest.mark.parametrize("size", [8192, 12_288, 16_385, 20_000, 40_960])
def test_a_tree_without_its_first_blocks_grows_to_the_same_root(size):
    """Left-hand hashes stand for what was dropped, from our own blocks or from a peer's word."""
    for start in range(0, size + 1, BLOCK_LEAVES):
        short = tree(size).without(start)
        assert (short.start, short.root) == (start, tree(size).root)
        assert short.extended(leaves(size, size + 9)).root == slow_root(0, size + 9)
        given_left = Tree.after(start, short.left)
        assert given_left.extended(leaves(start, size)) == short


@pytest.mark.parametrize("start", [1, 4095, 16_384])
def test_only_whole_blocks_that_are_held_are_dropped(start):
    """A cut within a block, or beyond the end, is our bug and changes nothing."""
    with pytest.raises(ValueError, match="begins no block"):
        tree(12_288).without(start)
    with pytest.raises(ValueError, match="begins no block"):
        tree(12_288).without(8192).left_at(4096)
    with pytest.raises(ValueError, match="no subtree left"):
        tree(12_288).without(8192).subtree(4096, 8192)
    with pytest.raises(ValueError, match="are no blocks"):
        tree(12_288).without(8192).subtree(8192, 9000)
    with pytest.raises(ValueError, match="left-hand hashes"):
        Tree.after(8192, (b"one", b"two"))


# ----------------------------------------------------------------- right-hand hashes


def check_right(end, size, subtree):
    """Check that prefix and right-hand hashes give the root, and that no turned bit does."""
    right = right_hashes(end, size, subtree)
    assert root_with_right(tree(end), size, right) == slow_root(0, size)
    assert len(right) <= size.bit_length()
    for number, one in enumerate(right):
        wrong = [*right[:number], flipped(one, number * 37), *right[number + 1 :]]
        assert root_with_right(tree(end), size, wrong) != slow_root(0, size)
    for wrong in ((*right, bytes(32)), right[1:] if right else (bytes(32),)):
        with pytest.raises(ValueError, match="right-hand hashes"):
            root_with_right(tree(end), size, wrong)


@few
@given(sizes, sizes)
@example(1, 1)
@example(256, 257)
def test_right_hand_hashes_complete_any_prefix(one, other):
    """A prefix and the subtrees that follow it make the signed root, and nothing else does."""
    check_right(min(one, other), max(one, other), slow_root)


@pytest.mark.parametrize("size", LARGE)
def test_right_hand_hashes_at_the_ends_of_blocks_need_no_leaf(size):
    """A server makes them from block roots and frontier alone."""
    for end in range(BLOCK_LEAVES, size + 1, BLOCK_LEAVES):
        check_right(end, size, tree(size).subtree)


# ----------------------------------------------------------------- consistency


def check_consistency(first, second):
    """Check a true proof against the RFC's, and that every turned bit is seen."""
    proof = consistency_proof(first, second, slow_root)
    of_rfc = slow_proof(first, 0, second, True)
    is_power = first & (first - 1) == 0
    assert list(proof) == ([slow_root(0, first)] if is_power else []) + of_rfc
    true_roots = (slow_root(0, first), slow_root(0, second))
    assert consistency_roots(first, second, proof) == true_roots
    for number, one in enumerate(proof):
        wrong = [*proof[:number], flipped(one, number * 29), *proof[number + 1 :]]
        # A wrong hash never leaves the newer root as it was: nobody can be accused with it.
        assert consistency_roots(first, second, wrong)[1] != true_roots[1]
    for wrong in ((*proof, bytes(32)), proof[1:]):
        with pytest.raises(ValueError, match="hashes between"):
            consistency_roots(first, second, wrong)


@few
@given(sizes, sizes)
@example(1, 2)
@example(128, 400)
def test_a_proof_shows_both_roots_and_nothing_else_does(one, other):
    """RFC 9162, 2.1.4, with the inner subtree always along."""
    if one != other:
        check_consistency(min(one, other), max(one, other))


@pytest.mark.parametrize(("first", "second"), [(4096, 40_960), (4097, 20_000), (12_288, 16_385), (1, 40_960)])
def test_proofs_in_large_trees(first, second):
    """Sizes at and around the ends of blocks."""
    check_consistency(first, second)


@pytest.mark.parametrize("start", [4096, 12_288, 16_384])
def test_a_tree_without_its_first_blocks_proves_what_came_after_them(start):
    """Left-hand hashes are enough for the past of any size from the first leaf held on."""
    short, whole = tree(40_000).without(start), tree(40_000)
    for first in (*range(start, 40_000, BLOCK_LEAVES), 39_999):

        def subtree(low, high):
            return (
                slow_root(low, high)
                if low % BLOCK_LEAVES or high % BLOCK_LEAVES
                else short.subtree(low, high)
            )

        assert consistency_roots(first, 40_000, consistency_proof(first, 40_000, subtree))[1] == whole.root
    with pytest.raises(ValueError, match="no subtree left"):
        short.subtree(0, 20_480)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 5), (5, 5), (6, 5), (2**62, 2**61)])
def test_sizes_without_a_past_have_no_proof(first, second):
    """Nothing, the same and less are no questions."""
    with pytest.raises(ValueError, match="hashes between"):
        consistency_roots(first, second, [bytes(32)])


@few
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 999))
def test_a_rewritten_past_is_shown_by_a_true_proof_of_the_new_tree(first, more, at):
    """Whatever leaf was changed: the newer root holds, the older is not what was signed."""
    second, changed = first + more, at % first
    other = [*leaves(0, changed), b"another", *leaves(changed + 1, second)]
    hashes = consistency_proof(first, second, lambda low, high: Tree().extended(other[low:high]).root)
    first_root, second_root = consistency_roots(first, second, hashes)
    assert Tree().extended(other).root == second_root
    assert first_root not in (slow_root(0, first), second_root)
