"""What several unit tests share."""

import pytest

from unit import simulated


@pytest.fixture
def simulated_ranks(monkeypatch):
    """Let guards take the communicators of a simulated world."""
    monkeypatch.setattr("allraise.arguments.resolve_comm", simulated.resolve)
    monkeypatch.setattr("allraise.arguments.private_of", simulated.private_of)
    monkeypatch.setattr("allraise.arguments.known_private", simulated.private_of)
