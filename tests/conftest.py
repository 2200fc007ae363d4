"""What holds for all tests: no example fails for having taken long, machines are noisy; speed belongs in benchmarks/."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from twisted.logger import globalLogPublisher

settings.register_profile("timeless", settings.default, deadline=None)
settings.load_profile("timeless")


@pytest.fixture
def everything_said(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[[], str]]:
    """Catch both kinds of log and both outputs."""
    events: list[str] = []
    caplog.set_level(logging.DEBUG)
    observer = lambda event: events.append(repr(event))
    globalLogPublisher.addObserver(observer)
    try:
        yield lambda: "".join((*events, caplog.text, *capfd.readouterr()))
    finally:
        globalLogPublisher.removeObserver(observer)
