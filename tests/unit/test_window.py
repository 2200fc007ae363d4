"""What is shown of a daemon to whoever can ask: the configuration without its secrets, and to whom; window."""

from types import SimpleNamespace

import pytest

from esgf_gossip.config import load
from esgf_gossip.window import Window, masked
from helpers.config import a_node_toml


def a_window(tmp_path, text=""):
    """Return the window of a daemon with that configuration."""
    path = a_node_toml(tmp_path)
    path.write_text(path.read_text() + text)
    actions = SimpleNamespace(
        config=load(path), reload=None, stop=None, leave=None, backup=None, announce=None, maintenance=None
    )
    tracking = SimpleNamespace(datasets=None)
    return Window(None, None, None, None, None, tracking, None, actions, lambda: 0)


def test_no_secret_of_the_configuration_is_shown(tmp_path):
    """Passwords in addresses, and the words that programs are called with."""
    window = a_window(
        tmp_path,
        '\n[trust]\nsecret_hook = ["/usr/bin/hook", "--token", "hunter2"]\n[documents]\nhook = ["/usr/bin/hook", "hunter2"]\n[esgf]\npublish = ["http://u:hunter2@x/"]\n',
    )
    shown = window.configuration()
    assert "hunter2" not in shown
    assert '"/usr/bin/hook", "***"' in shown
    assert "http://u:***@x/" in shown


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:hun@ter2@db/esgf",
        "postgresql://u:hun ter2@db/esgf",
        "host=db password=hunter2",
        "host=db password = 'hun ter2' user=u",
        "host=db PASSWORD='hunter2'",
    ],
)
def test_no_form_of_a_password_is_shown(text):
    """With a blank, with an @, quoted: what hides it looks at the whole."""
    hidden = masked(f'database = "{text}"\n[next]\nkey = "a@b"\n')
    assert "ter2" not in hidden
    assert "hun" not in hidden
    assert hidden.endswith('"\n[next]\nkey = "a@b"\n')


@pytest.mark.parametrize(
    ("listen", "is_private"),
    [
        ("127.0.0.1:8950", True),
        ("127.0.0.7:1", True),
        ("[::1]:8950", True),
        ("0.0.0.0:8950", False),
        ("[::]:8950", False),
    ],
)
def test_only_an_address_of_this_host_is_private(tmp_path, listen, is_private):
    """Every other may be asked by others."""
    window = a_window(tmp_path, f'\n[http]\nlisten = "{listen}"\n')
    assert window.is_private() is is_private
