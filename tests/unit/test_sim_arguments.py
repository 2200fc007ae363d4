"""What the simulator's command line takes, and what it says of the rest."""

import pytest

from esgf_gossip.sim.__main__ import main


@pytest.mark.parametrize(
    "arguments",
    [
        "spread --nodes 0",
        "spread --nodes 1",
        "spread --loss 2",
        "spread --loss -1",
        "spread --byzantine 0.9",
        "spread --changes 0",
        "spread --body-bytes 65537",
        "spread --jobs 0",
        "schedules 5-x",
        "schedules 9-3",
        "dance",
        "",
    ],
)
def test_a_run_that_could_not_end_is_refused_in_one_line(arguments, capsys):
    """Exit code 2 and a reason, before anything is simulated."""
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err.splitlines()[-1]
