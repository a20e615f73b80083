"""What a case of the zoo is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

INTACT = "intact"  # the same type, args, attributes, fields, notes, chain
TAMED = "tamed"  # the same type; what could not travel is there as its repr
TEXT = "text"  # a RemoteError that says type and message; no object


@dataclass(frozen=True)
class Case:
    """One hostile exception.

    Attributes:
        name: Unique.
        run: Raises it.
        outcome: What becomes of the object where its class can be imported.
        says: A part of the message that must be in the report.
        type_name: As a traceback prints it; None where Python's own text, with
            which the report is compared, has it.
        exact: Whether the report is Python's own text to the byte. Not where
            Python's `traceback` itself raises, nor where a cap cuts.
        portable: Whether a receiver without these test modules fares as well.
    """

    name: str
    run: Callable[[], Any]
    outcome: str = INTACT
    says: str = ""
    type_name: str | None = None
    exact: bool = True
    portable: bool = False

    def catch(self) -> BaseException:
        """Raise it and return it."""
        try:
            self.run()
        except BaseException as exc:
            return exc
        msg = f"{self.name} raised nothing"
        raise AssertionError(msg)


ZOO: dict[str, Case] = {}


def case(outcome: str = INTACT, says: str = "", **rest: Any) -> Callable[..., Any]:
    """Register a function that raises."""

    def register(run: Callable[[], Any]) -> Callable[[], Any]:
        made = Case(run.__name__, run, outcome, says, **rest)
        assert made.name not in ZOO, made.name
        ZOO[made.name] = made
        return run

    return register


def cases_of(
    table: dict[str, tuple[Callable[[], BaseException], str]],
    outcome: str = INTACT,
    **rest: Any,
) -> None:
    """Register exceptions that are made, then raised."""
    for name, (make, says) in table.items():

        def run(make: Callable[[], BaseException] = make) -> None:
            raise make()

        assert name not in ZOO, name
        ZOO[name] = Case(name, run, outcome, says, **rest)
