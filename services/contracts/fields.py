"""From a vendor's record to a canonical row: where each column comes from, and where custom fields lie.

A *path* is dotted (`status.name`): object keys, or list positions as numbers.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from services.contracts.access import Path
from services.contracts.schema import ColumnType, Name


class First(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="first"):
    """The first of several paths that holds something other than null."""

    paths: Annotated[list[Path], msgspec.Meta(min_length=1)]


class ValueMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="map"):
    """A value looked up by its text; `default` for one not listed (absent: the value itself)."""

    path: Path
    values: dict[str, str]
    default: str | None = None


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="when"):
    """The value at `path` where the text at `test` is one of `equals`, else null."""

    path: Path
    test: Path
    equals: list[str]


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="item"):
    """Of the list at `path` the first item whose text at `test` is one of `equals` (the first that is true, where it is
    a flag), and there the value at `value` (absent: the item itself)."""

    path: Path
    test: Path
    equals: list[str]
    value: Path | None = None


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="constant"):
    """The same text in every row."""

    value: str


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="function"):
    """A named function of `services/transformer/functions.py` over the values at `paths`."""

    name: Name
    paths: Annotated[list[Path], msgspec.Meta(min_length=1)]


Field = Path | First | ValueMap | When | Item | Constant | Call


def paths_of(field: Field) -> Iterator[tuple[str, ColumnType | None]]:
    """Every path a field looks at (`*`: any item of a list), and as what; None where it becomes the column's value."""
    match field:
        case First(paths=paths):
            yield from ((path, None) for path in paths)
        case Call(paths=paths):  # what a function takes is its own affair
            yield from ((path, "json") for path in paths)
        case ValueMap(path=path):
            yield path, "string"
        case When(path=path, test=test):
            yield from ((path, None), (test, "string"))
        case Item(path=path, test=test, value=value):
            yield f"{path}.*.{test}", "string"
            yield (path, "json") if value is None else (f"{path}.*.{value}", None)
        case str():
            yield field, None
        case _:
            return


class NamedValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list"):
    """Custom fields as a list of objects, each with a name and a value."""

    path: Path
    name: Path
    value: Path


class ObjectAt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="object"):
    """Custom fields as one object at `path`."""

    path: Path


class KeyPattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="keys"):
    """Custom fields beside the others, told by how their key begins or ends."""

    prefix: str = ""
    suffix: str = ""


CustomFields = NamedValues | ObjectAt | KeyPattern


class CanonicalMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which table an endpoint's records become, and where each column comes from.

    `time_zone` (an IANA name) is where times without a zone stand. `blank`: whether empty text is a value of its own,
    or how the vendor writes null, as those do whose fields always hold text.
    """

    table: Name
    fields: dict[Name, Field]
    time_zone: str = "UTC"
    blank: Literal["text", "null"] = "text"
