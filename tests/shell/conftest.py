"""What several tests of the shell share."""

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from helpers.mailing import Office


@pytest.fixture
def log():
    """Collect what is logged as an error."""
    errors = []
    observer = lambda event: errors.append(event) if event["log_level"] >= LogLevel.error else None
    globalLogPublisher.addObserver(observer)
    yield errors
    globalLogPublisher.removeObserver(observer)


@pytest.fixture
def office(tmp_path):
    """Give a mailing without a quiet period."""
    office = Office(tmp_path)
    yield office
    office.close()


@pytest.fixture
def offices(tmp_path):
    """Make mailings with settings of their own."""
    made = []

    def make(**settings):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Office(folder, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
