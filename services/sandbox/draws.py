"""The vocabulary in which record types are written: each function makes a `Field`.

A draw looks at nothing but its draft. Numbers with decimals are `Decimal`, so that the vendor's spelling of money
(`125.50`) survives encoding.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from random import Random

import msgspec

from services.sandbox.recipe import HREF_BASE, Data, Draft, Field, Kind
from services.sandbox.times import DAY_S, midnight_of, text_of


def maybe(field: Field, absent: float = 0.2, null: float = 0.1) -> Field:
    """The same field, sometimes left out, sometimes null."""
    return msgspec.structs.replace(field, absent=absent, null=null)


def optional(field: Field, absent: float = 0.3) -> Field:
    """The same field, sometimes left out but never null."""
    return msgspec.structs.replace(field, absent=absent)


def text(make: Callable[[Random], str], empty: float = 0.0) -> Field:
    """Text from a word function; `empty` is the probability of the empty string."""
    return Field("text", lambda draft: "" if empty and draft.rng.random() < empty else make(draft.rng))


def fixed(value: str | int | bool) -> Field:
    kind: Kind = "flag" if isinstance(value, bool) else "number" if isinstance(value, int) else "text"
    return Field(kind, lambda _: value)


def choice(*values: str) -> Field:
    return Field("text", lambda draft: draft.rng.choice(values))


def listed(*values: str) -> Field:
    """The names of a setup table, one after the other, then from the start again."""
    return Field("text", lambda draft: values[draft.number % len(values)])


def whole(low: int, high: int) -> Field:
    return Field("number", lambda draft: draft.rng.randint(low, high))


def decimal(low: int, high: int, places: int = 2) -> Field:
    """A number from `low` to `high` written with exactly `places` decimals."""
    scale = 10**places
    return Field("number", lambda draft: Decimal(draft.rng.randint(low * scale, high * scale)).scaleb(-places))


def flag(chance: float = 0.5) -> Field:
    return Field("flag", lambda draft: draft.rng.random() < chance)


def when(from_days: float, to_days: float) -> Field:
    """A time between two distances from the record's creation, in days, whole seconds."""

    def draw(draft: Draft) -> str:
        return text_of(draft.entered_at + draft.rng.randint(int(from_days * DAY_S), int(to_days * DAY_S)))

    return Field("date", draw)


def day(from_days: int, to_days: int) -> Field:
    """A date without a time, which the vendor writes as midnight UTC."""

    def draw(draft: Draft) -> str:
        return text_of(midnight_of(draft.entered_at) + draft.rng.randint(from_days, to_days) * DAY_S)

    return Field("date", draw)


def entered() -> Field:
    return Field("date", lambda draft: text_of(draft.entered_at))


def ref(path: str, within: str | None = None) -> Field:
    """A reference to a record of `path`; `within` names a reference drawn before, whose records alone qualify."""

    def draw(draft: Draft) -> Data | None:
        owner_id = None
        if within is not None:
            owner_id = draft.referred_id(within)
            if owner_id is None:
                return None
        found = draft.shelf.pick(draft.rng, path, owner_id)
        return None if found is None else draft.refer(found)

    return Field("reference", draw)


def brief(field: Field) -> Field:
    """The same reference with id and name only."""

    def draw(draft: Draft) -> object:
        value = field.draw(draft)
        return {name: value[name] for name in ("id", "name", "_info")} if isinstance(value, dict) else value

    return msgspec.structs.replace(field, draw=draw)


def each(path: str) -> Field:
    """A reference to the records of `path` in turn: every board gets its statuses."""

    def draw(draft: Draft) -> Data | None:
        found = draft.shelf.turn(path, draft.number)
        return None if found is None else draft.refer(found)

    return Field("reference", draw)


def each_id(path: str) -> Field:
    """The id alone of the records of `path` in turn, where the vendor gives no more than that."""

    def draw(draft: Draft) -> object:
        found = draft.shelf.turn(path, draft.number)
        return msgspec.UNSET if found is None else draft.refer(found)["id"]

    return Field("number", draw)


def setup(path: str, href: str, *names: str) -> Field:
    """A reference to a setup value that the sandbox does not serve: one of `names`, numbered from 1."""
    shown: list[Data] = [
        {"id": number, "name": name, "_info": {f"{href}_href": f"{HREF_BASE}/{path}/{number}"}}
        for number, name in enumerate(names, 1)
    ]
    return Field("reference", lambda draft: draft.rng.choice(shown))


def keyed(path: str, href: str, *pairs: tuple[str, str], name: str | None = "name") -> Field:
    """As `setup`, for references that carry an identifier: pairs of (identifier, name); no `name`, identifier only."""
    shown: list[Data] = []
    for number, (identifier, label) in enumerate(pairs, 1):
        value: Data = {"id": number, "identifier": identifier}
        if name is not None:
            value[name] = label
        shown.append(value | {"_info": {f"{href}_href": f"{HREF_BASE}/{path}/{number}"}})
    return Field("reference", lambda draft: draft.rng.choice(shown))


def shape(kind: Kind, make: Callable[[Draft], object]) -> Field:
    """Anything else, by a function of the draft."""
    return Field(kind, make)


def one_of(name: str, choices: Mapping[str, str]) -> Field:
    """Chooses a record among several types ({label: path}), remembers it as `name`, and is the label itself."""

    def draw(draft: Draft) -> object:
        labels = [label for label in choices if draft.shelf.pick(draft.rng, choices[label], None) is not None]
        if not labels:
            return msgspec.UNSET
        label = draft.rng.choice(labels)
        found = draft.shelf.pick(draft.rng, choices[label], None)
        assert found is not None, "a type that had a record a moment ago has one now"
        draft.chosen[name] = found
        return label

    return Field("text", draw)


def chosen_id(name: str) -> Field:
    """The id of the record that `one_of` chose."""

    def draw(draft: Draft) -> object:
        if name not in draft.chosen:
            return msgspec.UNSET
        draft.refer(draft.chosen[name])
        return draft.chosen[name].id

    return Field("number", draw)


def chosen_ref(name: str, *paths: str) -> Field:
    """The reference to the record that `one_of` chose, where it is of one of `paths`; otherwise left out."""

    def draw(draft: Draft) -> object:
        found = draft.chosen.get(name)
        return draft.refer(found) if found is not None and found.recipe.path in paths else msgspec.UNSET

    return Field("reference", draw)


def chosen_company(name: str, path: str) -> Field:
    """The company (a record of `path`) that the record chosen by `one_of` is, or belongs to."""

    def draw(draft: Draft) -> object:
        found = draft.chosen.get(name)
        if found is None:
            return msgspec.UNSET
        if found.recipe.path != path:
            company_id = found.data.get("company")
            company_id = company_id.get("id") if isinstance(company_id, dict) else None
            found = draft.shelf.find(path, company_id) if isinstance(company_id, int) else None
        return msgspec.UNSET if found is None else draft.refer(found)

    return Field("reference", draw)


def copied(field: str, inner: str, kind: Kind) -> Field:
    """A value inside a reference drawn before: `locationId` repeats `location.id`."""

    def draw(draft: Draft) -> object:
        value = draft.record.get(field)
        return value.get(inner, msgspec.UNSET) if isinstance(value, dict) else msgspec.UNSET

    return Field(kind, draw)


def looked_up(field: str, path: str, inner: str, kind: Kind) -> Field:
    """A field of the record that a reference drawn before points at: a ticket is closed when its status is."""

    def draw(draft: Draft) -> object:
        found_id = draft.referred_id(field)
        found = None if found_id is None else draft.shelf.find(path, found_id)
        return msgspec.UNSET if found is None else found.data.get(inner, msgspec.UNSET)

    return Field(kind, draw)


def only_if(condition: str, field: Field) -> Field:
    """`field`, where the flag drawn before as `condition` is true; otherwise left out."""
    return Field(field.kind, lambda draft: field.draw(draft) if draft.record.get(condition) is True else msgspec.UNSET)


def total(*terms: str) -> Field:
    """The sum of numbers drawn before; a term that starts with `-` is taken away."""

    def draw(draft: Draft) -> Decimal:
        amount = Decimal("0.00")
        for term in terms:
            value = draft.record.get(term.removeprefix("-"))
            if isinstance(value, (int, Decimal)):
                amount += -value if term.startswith("-") else value
        return amount

    return Field("number", draw)


def tags(*values: str) -> Field:
    """A list of texts, often empty."""
    return Field("list", lambda draft: draft.rng.sample(values, draft.rng.randint(0, len(values))))


def custom(*definitions: tuple[int, str, str, str, int, Callable[[Random], object]]) -> Field:
    """`customFields`: (id, caption, type, entryMethod, numberOfDecimals, value). A value may be null or left out."""

    def draw(draft: Draft) -> list[Data]:
        shown: list[Data] = []
        for number, caption, kind, entry, places, make in definitions:
            value: Data = {
                "id": number,
                "caption": caption,
                "type": kind,
                "entryMethod": entry,
                "numberOfDecimals": places,
            }
            luck = draft.rng.random()
            if luck < 0.7:
                value["value"] = make(draft.rng)
            elif luck < 0.85:
                value["value"] = None
            shown.append(value)
        return shown

    return Field("list", draw)
