"""What the lake must hold, read off what was served."""

from collections.abc import Mapping

from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.fields import CanonicalMapping
from services.contracts.rows import Entity
from services.contracts.schema import CanonicalTable, Column
from services.sandbox.comparison import History
from services.sandbox.oracle import Rules, Sighting, histories, stamp_at
from services.transformer.mapper import Mapper
from services.transformer.pinned import Pinned, PinnedEndpoint

TABLES = {"things": CanonicalTable("things", {"state": Column("string")})}
MAPPER = Mapper(
    Pinned("t", "s", 1, TABLES["things"], {"e": PinnedEndpoint("e", CanonicalMapping("things", {"state": "state"}))})
)
RULES = Rules("t", "s", stamp_at("at"), tick_s=1.0, sweep_interval_s=60.0)


def at(second: float) -> str:
    return f"2026-01-01T00:00:{second:09.6f}Z"


def served(second: float, state: str, stamp: float, *, sure: bool = True) -> Sighting:
    return Sighting("e", "1", at(second), f'{{"state":"{state}","at":"{at(stamp)}"}}'.encode(), sure)


def gone(second: float) -> Sighting:
    return Sighting("e", "1", at(second), None)


def expected(*sightings: Sighting) -> list[str]:
    """Every right history, such as `A 1-3, B 3-`; a time that cannot be known exactly stands with `~`."""

    def canonical(event: ChangeEvent) -> CanonicalEvent | None:
        return MAPPER.map(event)

    found: Mapping[Entity, list[History]] = histories(sightings, RULES, str, canonical, TABLES).get("things", {})
    return [shown(history) for alternatives in found.values() for history in alternatives]


def shown(history: History) -> str:
    def second(bounds: object) -> str:
        if bounds is None:
            return ""
        earliest, latest = bounds.earliest, bounds.latest  # type: ignore[attr-defined]
        return ("" if earliest == latest else "~") + str(round(float(latest[17:26])))

    return ", ".join(f"{one.values['state']} {second(one.valid_from)}-{second(one.valid_to)}" for one in history)


def test_the_vendors_times_are_the_versions_times() -> None:
    assert expected(served(5, "A", 1), served(9, "B", 7)) == ["A 1-7, B 7-"]


def test_two_states_of_one_tick_are_a_tie_and_the_later_reading_wins() -> None:
    assert expected(served(1.2, "A", 1), served(5, "B", 1)) == ["B 1-"]


def test_a_change_under_an_old_stamp_holds_from_when_it_was_read() -> None:
    assert expected(served(5, "A", 1), served(9, "B", 1)) == ["A 1-~9, B ~9-"]


def test_what_was_never_served_is_not_expected() -> None:
    assert expected(gone(9)) == []


def test_a_state_served_only_before_a_kill_may_be_there_or_not() -> None:
    assert expected(served(5, "A", 1, sure=False), served(9, "B", 7)) == ["A 1-7, B 7-", "B 7-"]


def test_a_record_served_only_before_a_kill_and_then_deleted_may_be_missing_altogether() -> None:
    assert "" in expected(served(5, "A", 1, sure=False), gone(9))
