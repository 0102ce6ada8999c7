"""What lies among the dead letters, counted by what is wrong; told from their names and from some of them. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from services.contracts.times import UtcTime


class Letter(msgspec.Struct, frozen=True):
    """As much of a dead letter as is counted."""

    code: str
    at: UtcTime


class Letters(msgspec.Struct, frozen=True, tag_field="kind", tag="dead_letters"):
    """Dead letters of one tenant, stage and group with one code; without a code, those that were not opened.

    `first_at` and `newest_at` are of those that were; `more`: there are letters that were not even listed.
    """

    tenant_id: str
    stage: str
    group: str
    code: str
    count: int
    first_at: UtcTime | None = None
    newest_at: UtcTime | None = None
    more: bool = False


def place_of(key: str) -> tuple[str, str, str]:
    """(tenant, stage, group) of a letter's key: `{tenant}/dead-letter/{stage}/{group}/{position}.json`."""
    tenant_id, _, stage, group, *_ = [*key.split("/", 4), "", "", "", ""]
    return tenant_id, stage, group


def to_open(keys: Iterable[str], most: int) -> list[str]:
    """At most so many keys, from every place in turn, so that a flood in one hides no other."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for key in keys:
        places.setdefault(place_of(key), []).append(key)
    return list(_in_turn(list(places.values())))[:most]


def _in_turn(places: Sequence[Sequence[str]]) -> Iterator[str]:
    for turn in range(max(map(len, places), default=0)):
        yield from (keys[turn] for keys in places if turn < len(keys))


def counted_letters(keys: Iterable[str], opened: Mapping[str, Letter], *, more: bool = False) -> list[Letters]:
    """Every letter listed, those opened by their code, in order."""
    found: dict[tuple[str, str, str, str], list[Letter | None]] = {}
    for key in keys:
        letter = opened.get(key)
        found.setdefault((*place_of(key), letter.code if letter else ""), []).append(letter)
    return [
        Letters(
            *at,
            len(letters),
            min((letter.at for letter in letters if letter), default=None),
            max((letter.at for letter in letters if letter), default=None),
            more,
        )
        for at, letters in sorted(found.items())
    ]
