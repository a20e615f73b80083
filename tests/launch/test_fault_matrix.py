"""Every fault of the matrix, on this MPI: what is shown, how it ends, and when."""

import pytest

import fault_cases


def pytest_generate_tests(metafunc):
    # Not a skip where there is no ULFM: it is one launcher's option.
    ways = ["", "ulfm"] if fault_cases.has_ulfm() else [""]
    metafunc.parametrize(
        ("fault", "way"),
        [
            pytest.param(
                fault,
                way,
                id=f"{fault.name} {way}".rstrip(),
                marks=[pytest.mark.slow] if fault.slow else [],
            )
            for way in ways
            for fault in fault_cases.FAULTS
        ],
    )


def test_a_fault_is_told_and_every_rank_ends_soon(fault, way, tmp_path):
    ended = fault_cases.run(fault, ulfm=bool(way), cwd=tmp_path)
    wrong = fault_cases.shortcomings(fault, ended)
    assert not wrong, f"{fault.told}: {'; '.join(wrong)}\n{ended.output[-20000:]}"
