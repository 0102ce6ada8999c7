"""Dead letters, counted by their names and by what some of them say."""

from services.cli.letters import Letter, Letters, counted_letters, place_of, to_open
from services.contracts.names import dead_letter_key

AT = ("2026-01-31T09:00:00.000000Z", "2026-01-31T10:00:00.000000Z")


def key(position: str, group: str = "tickets", stage: str = "transform") -> str:
    return dead_letter_key("acme", stage, group, position)


def test_a_key_tells_tenant_stage_and_group() -> None:
    assert place_of(key("shard-0/17-3")) == ("acme", "transform", "tickets")
    assert place_of("acme/dead-letter/x.json") == ("acme", "x.json", "")


def test_letters_are_counted_by_code_and_those_not_opened_apart() -> None:
    keys = [key("1"), key("2"), key("3"), key("1", group="users")]
    opened = {
        key("1"): Letter("bad_value", AT[1]),
        key("2"): Letter("bad_value", AT[0]),
        key("1", group="users"): Letter("missing_key", AT[0]),
    }
    assert counted_letters(keys, opened) == [
        Letters("acme", "transform", "tickets", "", 1),
        Letters("acme", "transform", "tickets", "bad_value", 2, *AT),
        Letters("acme", "transform", "users", "missing_key", 1, AT[0], AT[0]),
    ]


def test_a_flood_in_one_place_does_not_hide_another() -> None:
    flood = [key(f"{number:03d}") for number in range(500)]
    assert key("1", group="users") in to_open([*flood, key("1", group="users")], 4)
    assert len(to_open(flood, 4)) == 4
    assert to_open([], 4) == []
