"""The fixtures. One sandbox a session (with pytest-xdist: one a worker), as new for every test."""

import pytest

from .sandbox import Sandbox


def pytest_addoption(parser):
    parser.addini("card4e_bin", "the card4e program; by default CARD4E_BIN, or card4e on the PATH", default="")
    parser.addini("card4e_args", "more arguments of card4e sandbox", type="args", default=[])


@pytest.fixture(scope="session")
def card4e_sandbox(pytestconfig):
    """The session's sandbox, for fixtures of your own that outlive a test; nothing is reset."""
    sandbox = Sandbox(pytestconfig.getini("card4e_bin") or None, pytestconfig.getini("card4e_args"))
    yield sandbox
    sandbox.stop()


@pytest.fixture
def card4e(card4e_sandbox, monkeypatch):
    """The sandbox, reset, with the variables that clients read set to it."""
    for name, value in card4e_sandbox.environment.items():
        monkeypatch.setenv(name, value)
    card4e_sandbox.reset()
    return card4e_sandbox
