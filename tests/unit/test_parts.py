"""What was raised meanwhile comes from what a rank had failed with."""

from allraise.chains import put_on_top


def chain_of(exc):
    found = []
    while exc is not None and exc not in found:
        found.append(exc)
        exc = exc.__context__
    return found


def test_it_comes_last_of_what_there_is_already():
    first, second, failed = KeyError(1), KeyError(2), ValueError("failed")
    first.__context__ = second
    assert put_on_top(first, failed) is first
    assert chain_of(first) == [first, second, failed]


def test_what_is_there_already_is_not_put_there_again():
    error, failed = KeyError(1), ValueError("failed")
    error.__context__ = failed
    assert chain_of(put_on_top(put_on_top(error, failed), failed)) == [error, failed]
    assert put_on_top(error, error).__context__ is failed
    assert put_on_top(failed, None).__context__ is None


def test_no_circle_is_made_of_a_cause():
    due, caught = KeyError("due"), ValueError("caught")
    caught.__cause__ = due
    assert put_on_top(due, caught).__context__ is None


def test_a_circle_of_the_programs_own_ends_the_search():
    error, other, failed = KeyError(1), KeyError(2), ValueError("failed")
    error.__context__, other.__context__ = other, error
    assert put_on_top(error, failed) is error
