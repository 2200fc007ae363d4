"""What several tests of the shell share."""

import pytest
from twisted.logger import LogLevel, globalLogPublisher


@pytest.fixture
def log():
    """Collect what is logged as an error."""
    errors = []
    observer = lambda event: errors.append(event) if event["log_level"] >= LogLevel.error else None
    globalLogPublisher.addObserver(observer)
    yield errors
    globalLogPublisher.removeObserver(observer)
