"""JSON as the vendor wrote it: cut, cleaned and looked into without touching a token. Pure.

Decoding and encoding again would change `1.0e0`, `1.10` and 30-digit numbers; here a value stays the bytes it was.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

import msgspec

from services.contracts.json_text import without_lone_surrogates

KeyPath = tuple[str, ...]
NOWHERE: KeyPath = ("\x00",)  # no vendor's name: among the paths of `values_at`, where nothing is asked for
Cuts = dict[str, "Cuts | None"]  # what to leave out, as a tree; None: all of it

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode
_spell = msgspec.json.Encoder().encode

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]|[^\s"\[\]{},:]+|"', re.DOTALL)
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class UnreadableError(ValueError):
    """Not JSON in UTF-8, or nested too deeply for anybody to read."""


class CutOffError(ValueError):
    """The text ends before its value does."""


def split_path(path: str) -> KeyPath:
    """`status.name` -> ("status", "name"); empty text is the value itself."""
    return tuple(path.split(".")) if path else ()


def compact(data: bytes) -> bytes:
    """`data` without white space between tokens. Errors: UnreadableError."""
    try:
        data.decode()  # msgspec passes on bytes inside strings as they are
        return msgspec.json.format(data, indent=-1)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as err:
        raise UnreadableError(f"{type(err).__name__}: {err}") from err


def value_at(data: bytes, path: KeyPath) -> bytes | None:
    """The bytes of the value at `path` of readable JSON, None where there is none. Where the parts lead nowhere, the
    whole path is tried as one key: some vendors write `company.name` flat, or `@odata.nextLink`."""
    found = _along(data, path)
    return _member(data, ".".join(path)) if found is None and len(path) > 1 else found


def _along(data: bytes, path: KeyPath) -> bytes | None:
    found: bytes | None = data
    for key in path:
        if found is None:
            return None
        found = _member(found, key)
    return found


def _member(data: bytes, key: str) -> bytes | None:
    if data[:1] == b"{":
        found = _object(data).get(key)
    elif data[:1] == b"[" and key.isdecimal():
        items = _list(data)
        found = items[int(key)] if int(key) < len(items) else None
    else:
        return None
    return None if found is None else bytes(found)


def values_at(data: bytes, paths: tuple[KeyPath, ...]) -> list[bytes | None]:
    """`value_at` for several paths, in one look at each object on the way: three times as fast for a wide record."""
    found: list[bytes | None] = [None] * len(paths)
    _pick(data, _picker(paths), found)
    return found


class _Picker(msgspec.Struct, frozen=True):
    """What to take of a value: itself, for the paths numbered `here`; of an object, the members that `decode` gives as
    a Struct of as many fields: as they are for `leaves` (member, number of the path), opened for those `below`; of
    anything else, what lies at `paths`."""

    here: list[int]
    paths: list[tuple[int, KeyPath]]
    decode: Callable[[bytes], msgspec.Struct] | None
    leaves: list[tuple[int, int]]
    below: "list[tuple[int, _Picker]]"


_ABSENT = msgspec.Raw(b"")
_NO_FIELD_NAME = re.compile(r'["\\\x00-\x1f]')  # names msgspec gives to no field
_members_of = msgspec.structs.astuple


@lru_cache(maxsize=4096)
def _picker(paths: tuple[KeyPath, ...]) -> _Picker:
    flat = [(number, (".".join(path),)) for number, path in enumerate(paths) if len(path) > 1]
    return _picker_of([*flat, *enumerate(paths)])  # what the parts lead to comes last, and counts


def _picker_of(places: list[tuple[int, KeyPath]]) -> _Picker:
    deeper = [(number, path) for number, path in places if path and path != NOWHERE]
    groups: dict[str, list[tuple[int, KeyPath]]] = {}
    for number, path in deeper:
        groups.setdefault(path[0], []).append((number, path[1:]))
    decode = None
    if groups and not any(_NO_FIELD_NAME.search(name) for name in groups):
        fields = [
            (f"m{place}", msgspec.Raw, msgspec.field(default=_ABSENT, name=name)) for place, name in enumerate(groups)
        ]
        decode = msgspec.json.Decoder(msgspec.defstruct("Members", fields)).decode
    leaves: list[tuple[int, int]] = []
    below: list[tuple[int, _Picker]] = []
    for member, group in enumerate(groups.values()):
        leaves += [(member, number) for number, path in group if not path]
        inner = [(number, path) for number, path in group if path]
        if inner:
            below.append((member, _picker_of(inner)))
    return _Picker([number for number, path in places if not path], deeper, decode, leaves, below)


def _pick(data: bytes, picker: _Picker, found: list[bytes | None]) -> None:
    for number in picker.here:
        found[number] = data
    if picker.decode is None or data[:1] != b"{":
        for number, path in picker.paths:
            value = _along(data, path)
            found[number] = found[number] if value is None else value
        return
    members = _members_of(picker.decode(data))
    for member, number in picker.leaves:
        if members[member] is not _ABSENT:
            found[number] = bytes(members[member])
    for member, inner in picker.below:
        if members[member] is not _ABSENT:
            _pick(bytes(members[member]), inner, found)


def items_of(data: bytes) -> list[bytes]:
    """The items of a JSON list. Errors: UnreadableError where it is not one."""
    try:
        return [bytes(item) for item in _list(data)]
    except msgspec.DecodeError as err:
        raise UnreadableError(str(err)) from err


def hollow(data: bytes, path: KeyPath, items: list[bytes]) -> bytes | None:
    """Readable, compact JSON with the list at `path` empty, its items added to `items`; None where nothing is there.

    Shape:  null in the list's place is no items; `*` is every item of a list, and what lacks the rest of the path or
            has null on the way has no items.
    Errors: UnreadableError where something else stands there.
    """
    if data == b"null" and not path:
        return data
    if not path:
        items += items_of(data)
        return b"[]"
    name, rest = path[0], path[1:]
    if name == "*" and data[:1] == b"[":
        return b"[" + b",".join(hollow(item, rest, items) or item for item in items_of(data)) + b"]"
    if data[:1] == b"[" and name.isdecimal():
        places = items_of(data)
        inner = hollow(places[int(name)], rest, items) if int(name) < len(places) else None
        return (
            None if inner is None else b"[" + b",".join([*places[: int(name)], inner, *places[int(name) + 1 :]]) + b"]"
        )
    members = _object(data) if data[:1] == b"{" else {}
    inner = hollow(bytes(members[name]), rest, items) if name in members else None
    return None if inner is None else _spell({**members, name: msgspec.Raw(inner)})


def scalar_text(data: bytes | None) -> str | None:
    """A string's text or a number's own spelling; None for anything else."""
    if data is None:
        return None
    if data[:1] == b'"':
        return _text(data)
    return data.decode() if data[:1] in b"-0123456789" else None


# -- text that is not all JSON ----------------------------------------------------------------------------------------
def split_items(data: bytes, path: KeyPath) -> tuple[list[bytes], bytes]:
    """The items of the list at `path` (`*`: of every list), found by brackets and quotes alone: some of them may be
    unreadable. And the text with that list empty.

    Errors: CutOffError where the text ends early; UnreadableError where there is no list at `path`.
    """
    items: list[bytes] = []
    around: list[bytes] = []
    kept = 0
    for start in _starts_of(data, 0, path):
        if path and data.startswith(b"null", start):
            continue
        if data[start : start + 1] != b"[":
            raise UnreadableError("there is no list")
        spans = [(first, last) for _, first, last in _members(data, start)]
        items += [data[first:last] for first, last in spans]
        if spans:
            around.append(data[kept : spans[0][0]])
            kept = spans[-1][1]
    _end_of(data, 0)  # the whole answer must close
    return items, b"".join([*around, data[kept:]])


def without(data: bytes, cuts: Cuts) -> bytes:
    """Readable, compact JSON without what `cuts` names; every other token stays as it is.

    Shape: a name met at a list means each of its items, a number means that item, which becomes null (its neighbours
           keep their places).
    """
    if data[:1] == b"{":
        kept = [
            name + (value if inner is KEEP else without(value, inner))
            for key, name, value in _object_members(data)
            if (inner := cuts.get(key, KEEP)) is not None
        ]
        return b"{" + b",".join(kept) + b"}"
    if data[:1] == b"[":
        every = {name: inner for name, inner in cuts.items() if not name.isdecimal()}
        items = []
        for place, item in enumerate(_list(data)):
            inner = cuts.get(str(place), every)
            items.append(b"null" if inner is None else without(bytes(item), {**every, **inner}))
        return b"[" + b",".join(items) + b"]"
    return data


def with_member(data: bytes, name: str, value: bytes) -> bytes:
    """A readable, compact object with one member more, the last, in place of another of that name; every other token
    stays as it is. What is no object stays as it is."""
    if data[:1] != b"{":
        return data
    kept = without(data, {name: None}) if name in _object(data) else data
    return kept[:-1] + (b"," if len(kept) > len(b"{}") else b"") + _spell(name) + b":" + value + b"}"


def without_items(data: bytes, path: KeyPath, dropped: Callable[[bytes], bool]) -> bytes:
    """Readable, compact JSON without those items of the list at `path` that are to be `dropped`."""
    if path and data[:1] == b"{":
        return (
            b"{"
            + b",".join(
                name + (without_items(value, path[1:], dropped) if key == path[0] else value)
                for key, name, value in _object_members(data)
            )
            + b"}"
        )
    if not path and data[:1] == b"[":
        return b"[" + b",".join(item for item in map(bytes, _list(data)) if not dropped(item)) + b"]"
    return data


KEEP: Cuts = {}


def cuts_of(paths: Iterable[KeyPath]) -> Cuts:
    """Paths as the tree that `without` takes."""
    tree: Cuts = {}
    for path in paths:
        node = tree
        for key in path[:-1]:
            below = node.setdefault(key, {})
            if below is None:
                break
            node = below
        else:
            node[path[-1]] = None
    return tree


def _object_members(data: bytes) -> list[tuple[str, bytes, bytes]]:
    """(key, the key's own spelling and its colon, value) of readable compact JSON."""
    found = [(key, _spell(key) + b":", bytes(value)) for key, value in _object(data).items()]
    if b"{" + b",".join(name + value for _, name, value in found) + b"}" == data:
        return found
    # A key is spelled in a rare way or stands there twice: look at every sign, which takes twenty times as long.
    return [
        (_text(data[first : start - 1]), data[first:start], data[start:last])
        for first, start, last in _members(data, 0)
    ]


def _members(data: bytes, start: int) -> Iterable[tuple[int, int, int]]:
    """(start of the member, of its value, end) in the object or list at `start`; in a list the first two agree."""
    is_object, at = data[start : start + 1] == b"{", start + 1
    while True:
        token = _token(data, at)
        if token[0] in b"]}":
            return
        if token[0] in b",":
            at = token[2]
            continue
        first = value = token[1]
        if is_object:
            colon = _token(data, token[2])
            value = _token(data, colon[2])[1]
        at = _end_of(data, value)
        yield first, value, at


def _token(data: bytes, at: int) -> tuple[bytes, int, int]:
    """(first byte, start, end) of the next token."""
    found = _TOKEN.search(data, at)
    if found is None or found.group() == b'"':
        raise CutOffError("the text ends early")
    return found.group()[:1], found.start(), found.end()


def _end_of(data: bytes, at: int) -> int:
    """Where the value that begins at or after `at` ends."""
    depth = 0
    while True:
        first, _, at = _token(data, at)
        if first in b"[{":
            depth += 1
        elif first in b"]}":
            depth -= 1
        if depth <= 0 and first not in b",:":
            return at


def _starts_of(data: bytes, at: int, path: KeyPath) -> Iterator[int]:
    """Where the values at `path` begin. Errors: UnreadableError where there is none, but for what lies below a `*`."""
    first, start, _ = _token(data, at)
    if not path:
        yield start
        return
    members = _members(data, start) if first in b"[{" else ()
    if path[0] == "*" and first == b"[":
        for _, value, _ in members:
            with contextlib.suppress(UnreadableError):
                yield from _starts_of(data, value, path[1:])
        return
    for place, (member, value, _) in enumerate(members):
        name = str(place) if first == b"[" else _key(data[member:value])
        if name == path[0]:
            yield from _starts_of(data, value, path[1:])
            return
    raise UnreadableError(f"there is nothing at {path[0]!r}")


def _key(data: bytes) -> str:
    try:
        return _text(without_lone_surrogates(data.rstrip(b": \t\r\n")))
    except msgspec.DecodeError:
        return ""
