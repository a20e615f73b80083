"""Coming to an agreement where others are open around it, without MPI."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from allraise import impasse


class EmptyError(Exception):
    def __len__(self):
        return 0


@pytest.mark.parametrize("exc", [EmptyError("mine"), None])
def test_what_a_rank_has_failed_with_is_not_asked_for_its_truth(exc, monkeypatch):
    ended = RuntimeError("ended around here")
    monkeypatch.setattr(impasse, "_pass_door", lambda _: ended)
    monkeypatch.setattr(impasse, "watch_nothing", lambda _: None)
    monkeypatch.setattr(impasse, "_depth_over", lambda _: 0)
    root = SimpleNamespace(watched_before=[()], skips=False)
    found = impasse.come_by(root, exc)
    assert found is (ended if exc is None else exc)
