"""Importing starts nothing and changes nothing in the process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import allraise

CHANGES = """
import copyreg, faulthandler, json, signal, sys, threading, warnings
import traceback, typing  # typing registers classes of its own with copyreg
def state():
    return {
        "copyreg": sorted(map(str, copyreg.dispatch_table)),
        "excepthook": sys.excepthook is sys.__excepthook__,
        "unraisablehook": sys.unraisablehook is sys.__unraisablehook__,
        "thread hook": threading.excepthook is threading.__excepthook__,
        "threads": threading.active_count(),
        "signals": [str(signal.getsignal(n)) for n in signal.valid_signals()],
        "filters": len(warnings.filters),
        "recursion": sys.getrecursionlimit(),
        "switch": sys.getswitchinterval(),
        "trace": [sys.gettrace(), sys.getprofile()],
        "faulthandler": faulthandler.is_enabled(),
        "format": traceback.TracebackException.format.__module__,
    }
before = state()
import allraise
import allraise.dcp
after = state()
print(json.dumps({
    "before": before, "after": after,
    "mpi": [m for m in sys.modules if m.startswith("mpi4py.")],
    "numpy": "numpy" in sys.modules,
}))
"""


@pytest.fixture(scope="module")
def seen():
    run = subprocess.run(
        [sys.executable, "-c", CHANGES],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(run.stdout)


def test_importing_starts_no_mpi(seen):
    assert "mpi4py.MPI" not in seen["mpi"]


def test_importing_changes_nothing_in_the_process(seen):
    assert seen["after"] == seen["before"]


def test_importing_brings_no_numpy(seen):
    assert not seen["numpy"]


def test_the_public_names_are_all_there():
    names = [
        "CheckpointError",
        "CheckpointException",
        "CollectiveSteps",
        "HangError",
        "PeerFailure",
        "RemoteError",
        "Report",
        "StepMismatchError",
        "WrappedException",
        "agree",
        "collect",
        "guard",
        "is_wrapped_exception",
        "load_report",
        "wrap_exception",
    ]
    assert set(names) <= set(allraise.__all__)
    assert all(hasattr(allraise, name) for name in allraise.__all__)
    assert allraise.__all__ == sorted(allraise.__all__)


def test_the_version_is_one():
    assert allraise.__version__.count(".") == 2


@pytest.mark.parametrize("name", [n for n in allraise.__all__ if n[0].isupper()])
def test_public_classes_name_the_package_they_are_imported_from(name):
    cls = getattr(allraise, name)
    if isinstance(cls, type) and issubclass(cls, BaseException):
        assert cls.__module__ == "allraise"
    else:
        assert getattr(allraise, name) is cls
