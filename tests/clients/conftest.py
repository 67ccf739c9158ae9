"""Fixtures: a sandbox per session, as new for every test."""

import os

import pytest

from harness import Nginx, Sandbox

# The SDKs look at these; the tests talk to loopback only.
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(name, None)
    os.environ.pop(name.lower(), None)


@pytest.fixture(scope="session")
def running_sandbox(tmp_path_factory):
    server = Sandbox(tmp_path_factory.mktemp("sandbox"))
    yield server
    server.stop()


@pytest.fixture
def sandbox(running_sandbox):
    """The sandbox, reset: no faults, the real clock, the accounts it started with."""
    assert running_sandbox.process.poll() is None, f"it died:\n{running_sandbox.tail()}"
    running_sandbox.reset()
    yield running_sandbox
    running_sandbox.reset()


@pytest.fixture(scope="session")
def running_window_sandbox(tmp_path_factory):
    server = Sandbox(
        tmp_path_factory.mktemp("window"),
        config="[idempotency]\ncontent_window_seconds = 60\n",
    )
    yield server
    server.stop()


@pytest.fixture
def window_sandbox(running_window_sandbox):
    """A sandbox that takes the same content within 60 s for the same question."""
    running_window_sandbox.reset()
    yield running_window_sandbox
    running_window_sandbox.reset()


@pytest.fixture(scope="session")
def nginx(running_sandbox, tmp_path_factory):
    server = Nginx(tmp_path_factory.mktemp("nginx"), running_sandbox.address)
    yield server
    server.stop()
