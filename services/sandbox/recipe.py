"""What a record type is: a path, the fields drawn for it, how others refer to it, how it lives.

The record types themselves are data (`recipes_*.py`); the code that serves and changes them knows only these shapes.
"""

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Literal, Protocol, TypeAlias

import msgspec

from services.sandbox.times import text_of

Kind: TypeAlias = Literal["number", "text", "flag", "date", "reference", "list"]
Data: TypeAlias = dict[str, object]
Link: TypeAlias = tuple[str, int]  # (family, id) of a record that another record points at

HREF_BASE = "https://sandbox.invalid/v4_6_release/apis/3.0"
_ID_AND_NAME = {"id": ("id",), "name": ("name",)}


class Field(msgspec.Struct, frozen=True):
    """How one field is drawn. `absent` and `null` are probabilities, tried in that order before `draw`.

    A draw that returns `msgspec.UNSET` leaves the field out.
    """

    kind: Kind
    draw: "Callable[[Draft], object]"
    absent: float = 0.0
    null: float = 0.0


class Recipe(msgspec.Struct, frozen=True):
    """One record type of the vendor.

    `path` may hold one `{id}`: that of the record the field `owner` refers to. `named_by` says what a reference to a
    record repeats: name in the reference -> fields of the record, joined by a blank where there are several. `moving`
    are groups of fields that a live change draws again together; `churn` is how often the type changes, against the
    others. Record types with one `id_space` never use an id twice; absent, the path is its own space. `touches`: a
    change is one of the record it belongs to as well, which gets a new stamp.
    """

    path: str
    noun: str
    href: str
    fields: Mapping[str, Field]
    named_by: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=lambda: _ID_AND_NAME)
    owner: str | None = None
    id_space: str | None = None
    moving: tuple[tuple[str, ...], ...] = ()
    churn: int = 1
    deletable: bool = False
    touches: bool = False

    @property
    def family(self) -> str:
        return self.path if self.id_space is None else self.id_space


class Entry(msgspec.Struct, eq=False):
    """One living record: its content, and what is known of it. `data` is replaced, never changed in place."""

    recipe: Recipe
    id: int
    data: Data
    version: int
    stamp: int  # `_info.lastUpdated` in seconds since 1970
    owner_id: int | None
    links: frozenset[Link]
    reference: Data | None = None  # how others refer to this version, once somebody has


class Shelf(Protocol):
    """Where a draft finds the records it refers to."""

    def pick(self, rng: Random, path: str, owner_id: int | None) -> Entry | None: ...

    def turn(self, path: str, number: int) -> Entry | None: ...

    def find(self, path: str, record_id: int) -> Entry | None: ...


class Draft:
    """A record being drawn: fields come in order, and a later one may look at those before it.

    `record` is changed in place; `number` is the record's id; `entered_at` is in seconds since 1970.
    """

    __slots__ = ("chosen", "entered_at", "links", "number", "record", "rng", "shelf")

    def __init__(self, rng: Random, shelf: Shelf, record: Data, number: int, entered_at: int) -> None:
        self.rng = rng
        self.shelf = shelf
        self.record = record
        self.number = number
        self.entered_at = entered_at
        self.links: set[Link] = set()
        self.chosen: dict[str, Entry] = {}

    def refer(self, entry: Entry) -> Data:
        """The reference to `entry`; this record leans on it from now on."""
        self.links.add((entry.recipe.family, entry.id))
        if entry.reference is None:
            entry.reference = reference(entry)
        return entry.reference

    def referred_id(self, field: str) -> int | None:
        """The id inside the reference already drawn as `field`; None where there is none."""
        return referred_id(self.record, field)

    def fill(self, recipe: Recipe, names: Iterable[str]) -> None:
        """Draws the named fields into the record. A field that is left out this time disappears."""
        for name in names:
            value = draw(recipe.fields[name], self)
            if value is msgspec.UNSET:
                self.record.pop(name, None)
            else:
                self.record[name] = value


def draw(field: Field, draft: Draft) -> object:
    """One value: `UNSET` (left out), None (null) or what the field draws."""
    if field.absent and draft.rng.random() < field.absent:
        return msgspec.UNSET
    if field.null and draft.rng.random() < field.null:
        return None
    return field.draw(draft)


def reference(entry: Entry) -> Data:
    """How other records show this one: `{id, name, _info: {company_href: ...}}` (the vendor's schemas `*Reference`)."""
    shown: Data = {}
    for name, sources in entry.recipe.named_by.items():
        values = [entry.data[source] for source in sources if entry.data.get(source) is not None]
        if values:
            shown[name] = values[0] if len(sources) == 1 else " ".join(str(value) for value in values)
    path = entry.recipe.path.replace("{id}", str(entry.owner_id))
    shown["_info"] = {f"{entry.recipe.href}_href": f"{HREF_BASE}/{path}/{entry.id}"}
    return shown


def referred_id(data: Data, field: str | None) -> int | None:
    """The id that the reference `field` of a record holds, or is; None where there is none."""
    value = None if field is None else data.get(field)
    found = value.get("id") if isinstance(value, dict) else value
    return found if isinstance(found, int) else None


def information(updated_at: int, updated_by: str, entered_at: int, entered_by: str) -> Data:
    """The `_info` of a record: texts only, times in whole seconds."""
    return {
        "lastUpdated": text_of(updated_at),
        "updatedBy": updated_by,
        "dateEntered": text_of(entered_at),
        "enteredBy": entered_by,
    }
