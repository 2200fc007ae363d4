"""How long to wait before something is tried again."""

from __future__ import annotations

from random import Random
from typing import Final

_DOUBLINGS: Final = 30


def delay_ms(tries: int, first_ms: int, most_ms: int, random: Random) -> int:
    """
    Return the wait after so many failures: doubled each time up to ``most_ms``, between a half and the whole of that.

    Drawn at random, so that what failed together is not tried together.
    """
    whole = min(most_ms, first_ms << min(max(tries - 1, 0), _DOUBLINGS))
    return int(whole * (0.5 + random.random() / 2))
