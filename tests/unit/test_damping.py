"""Damping delays the way back of a node that flaps, and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from esgf_gossip.web.damping import FREE_FALLS, MOST_DELAY_S, WINDOW_S, Damping

HOST = "n.example.org"


def flap(damping: Damping, times: int, every_s: float, start_s: float = 0.0) -> list[float]:
    """Let a node fall and rise; return how long each way back took."""
    delays = []
    for number in range(times):
        damping.fell(HOST, start_s + number * every_s)
        delays.append(damping.rose(HOST, start_s + number * every_s + 1))
    return delays


def test_a_few_falls_cost_nothing_and_then_ever_more():
    """A restart or two come back at once; flapping does not."""
    delays = flap(Damping(), 12, 20.0)
    assert delays[:FREE_FALLS] == [0.0] * FREE_FALLS
    assert delays[FREE_FALLS:] == sorted(delays[FREE_FALLS:])
    assert delays[FREE_FALLS] > 0
    assert delays[-1] == MOST_DELAY_S


def test_falls_far_apart_are_forgotten():
    """Three falls a day are no flapping."""
    assert flap(Damping(), 10, WINDOW_S) == [0.0] * 10


def test_a_held_node_is_released_when_its_time_is_up():
    """Held from its rise for as long as was said, not while it is down."""
    damping = Damping()
    delay_s = flap(damping, FREE_FALLS + 1, 5.0)[-1]
    rose_s = FREE_FALLS * 5.0 + 1
    assert damping.held(rose_s) == {HOST}
    assert damping.held(rose_s + delay_s) == frozenset()
    damping.fell(HOST, rose_s + 1)
    assert damping.held(rose_s + 1) == frozenset()


@given(st.lists(st.tuples(st.sampled_from(["fell", "rose"]), st.floats(0, 5000)), max_size=80))
def test_memory_and_delays_are_bounded(moves):
    """Whatever the order of events, delays stay below the most and old records go."""
    damping = Damping()
    now_s = 0.0
    for move, step_s in moves:
        now_s += step_s
        if move == "fell":
            damping.fell(HOST, now_s)
        else:
            assert 0 <= damping.rose(HOST, now_s) <= MOST_DELAY_S
    damping.rose(HOST, now_s)
    damping.held(now_s + WINDOW_S + MOST_DELAY_S + 1)
    assert damping._records == {}
