"""An answer's bytes -> the records on it, each as the vendor wrote it. Pure.

The rest flow on: what cannot be used becomes a `BadRecord`, never an exception. Only an answer that cannot be taken
apart at all is an error, and a retryable one: it was cut off or was never a list.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, tzinfo
from functools import partial
from typing import Final, Literal

import msgspec

from services.contracts.errors import Code, RetryableError
from services.contracts.integration import PARENT_KEY
from services.contracts.reading import FieldList
from services.contracts.times import UtcTime, shifted
from services.extractor.answers import Answer, Opened, open_answer
from services.extractor.pagination import Row, Turn
from services.extractor.raw_json import (
    BYTE_ORDER_MARK,
    Cuts,
    KeyPath,
    UnreadableError,
    compact,
    scalar_text,
    split_path,
    value_at,
    values_at,
    with_member,
    without,
    without_items,
)
from services.extractor.stamps import read_stamp

RECORD_BYTES_MAX: Final = 20_000_000
FUTURE_MAX_S: Final = 86_400.0  # a stamp further ahead is no stamp
_NOWHERE: Final[KeyPath] = ("\x00",)  # no vendor's name
# RFC 8288 3: `<address>; rel="next"; title="..."`; a quoted text may hold commas and semicolons.
_PARAMETER = r';\s*([^\s;,="]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?\s*'
_LINK = re.compile(rf"<([^>]*)>\s*((?:{_PARAMETER})*)")
_LINK_PARAMETER = re.compile(_PARAMETER)


class ItemRule(msgspec.Struct, frozen=True):
    """Items of the list at `path` that are left out: those whose text at `test` is one of `equals`."""

    path: KeyPath
    test: KeyPath
    equals: frozenset[str]

    def drops(self, item: bytes) -> bool:
        return scalar_text(value_at(item, self.test)) in self.equals


class ConditionRule(msgspec.Struct, frozen=True):
    """The text at `path` is one of `equals` (also `true` and `false`); without them: something not null is there."""

    path: KeyPath
    equals: frozenset[str] = frozenset()

    def holds(self, value: bytes | None) -> bool:
        """Of the value that was found at `path`."""
        if not self.equals:
            return value is not None and value != b"null"
        return _text_of(value) in self.equals


class GraveRule(msgspec.Struct, frozen=True):
    """Where a record says that one of `endpoint` is gone (`Endpoint.tombstones`)."""

    endpoint: str
    record_id: KeyPath
    at: KeyPath | None = None
    when: ConditionRule | None = None


class Signs(msgspec.Struct, frozen=True):
    """Where an answer tells how it goes on: paths in it, `last` in its last record, `header` the name of a header in
    lower case; `link`: the header `Link` does."""

    cursor: KeyPath | None = None
    header: str | None = None
    link: bool = False
    last: KeyPath | None = None
    more: KeyPath | None = None
    end: KeyPath | None = None
    pages: KeyPath | None = None
    total: KeyPath | None = None
    token: KeyPath | None = None


class Rules(msgspec.Struct, frozen=True):
    """Where the parts of an endpoint's records lie, and what its answers tell besides.

    `key` is what a keyset walk is ordered by, `time` what it is ordered by first; `rows`: the walk needs to know each
    row (`pagination.Row`). `links` are the values that endpoints below ask for. `zone` is where times without one
    stand. `included`: what records take along of the parent below which they are read, a JSON object (b"": nothing).
    """

    record_id: tuple[KeyPath, ...]
    composite: bool = False
    updated_at: KeyPath | None = None
    records: KeyPath = ()
    format: Literal["json", "ndjson", "csv"] = "json"
    drop: Cuts = {}
    drop_items: tuple[ItemRule, ...] = ()
    key: KeyPath | None = None
    time: KeyPath | None = None
    rows: bool = False
    signs: Signs = Signs()
    deleted_when: ConditionRule | None = None
    links: tuple[KeyPath, ...] = ()
    graves: tuple[GraveRule, ...] = ()
    zone: tzinfo = UTC
    included: bytes = b""


class Grave(msgspec.Struct, frozen=True, gc=False):
    """A record of `endpoint` is gone, since `at` (None: since we read of it)."""

    endpoint: str
    record_id: str
    at: UtcTime | None = None


class VendorRecord(msgspec.Struct, frozen=True, gc=False):
    """One record. `stamp` is the vendor's modification time; `digest` tells its payload from another (16 bytes).

    `deleted`: it says of itself that it is gone; `links` are the texts at `Rules.links` ("" where there is none);
    `graves` the records it says are gone.
    """

    record_id: str
    payload: bytes
    digest: bytes
    stamp: UtcTime | None
    deleted: bool = False
    links: tuple[str, ...] = ()
    graves: tuple[Grave, ...] = ()


class BadRecord(msgspec.Struct, frozen=True):
    """What cannot be used, with its bytes."""

    code: Code
    reason: str
    data: bytes
    record_id: str = ""


class RecordPage(msgspec.Struct, frozen=True):
    """One page: what can be used and what cannot, in order."""

    records: tuple[VendorRecord, ...]
    bad: tuple[BadRecord, ...]
    turn: Turn

    @property
    def garbled(self) -> bool:
        """Something on it is no JSON: worth asking again before that is believed."""
        return any(bad.code == "payload_unreadable" for bad in self.bad)

    @property
    def usable(self) -> "RecordPage":
        """The page without what is bad on it."""
        return RecordPage(self.records, (), self.turn)


class IdPage(msgspec.Struct, frozen=True):
    """One page of which only the ids matter."""

    ids: tuple[str, ...]
    turn: Turn
    garbled: bool = False

    @property
    def usable(self) -> "IdPage":
        return self


def read_page(answer: Answer, rules: Rules, observed_at: UtcTime) -> RecordPage:
    """The records of one answer, or of a batch of one, with what they take along of their parent.

    Errors: RetryableError `bad_answer`; RejectedError `too_large`.
    """
    opened = open_answer(answer, rules.records, rules.format)
    bad = [BadRecord("payload_unreadable", reason, _withheld(data, rules)) for data, reason in opened.unreadable]
    latest_at = shifted(observed_at, seconds=FUTURE_MAX_S)
    paths, found = _paths(rules), _Found()
    records: list[VendorRecord] = []
    for item in _items(opened, rules):
        if len(item) > RECORD_BYTES_MAX:
            parts = _Parts(values_at(item, paths), rules)
            if not parts.deleted:  # a deletion is published without the record
                what = f"{len(item)} bytes, more than {RECORD_BYTES_MAX}"
                bad.append(BadRecord("too_large", what, _without_dropped(item, rules)))
                found.note(parts, rules, item)
                continue
        record = _read_record(item, rules, paths, latest_at, found)
        if isinstance(record, VendorRecord):
            records.append(record)
        else:
            bad.append(record)
    return RecordPage(tuple(records), tuple(bad), found.turn(answer, opened, rules))


def read_ids(answer: Answer, rules: Rules, _observed_at: UtcTime = "") -> IdPage:
    """The ids of one answer; a record without one counts and is not listed, and one that says of itself that it is
    deleted is none. Errors: as `read_page`."""
    opened = open_answer(answer, rules.records, rules.format)
    paths, found = _paths(rules), _Found()
    ids: list[str] = []
    for item in _items(opened, rules):
        parts = _Parts(values_at(item, paths), rules)
        found.note(parts, rules, item)
        if parts.record_id is not None and not parts.deleted:
            ids.append(parts.record_id)
    return IdPage(tuple(ids), found.turn(answer, opened, rules), garbled=bool(opened.unreadable))


def is_deleted(answer: Answer, rules: Rules) -> bool:
    """Does an answer that holds one record, itself or as the only one of a list, say that it is deleted?"""
    condition = rules.deleted_when
    if condition is None:
        return False
    try:
        data = compact(answer.body.removeprefix(BYTE_ORDER_MARK))
    except UnreadableError:
        return False
    items = [data]
    with contextlib.suppress(RetryableError, UnreadableError):
        items += open_answer(Answer(answer.status, data), rules.records).items
    return any(item[:1] == b"{" and condition.holds(value_at(item, condition.path)) for item in items)


def joined(parts: Sequence[Opened], rules: Rules) -> Opened | None:
    """One list from several answers that hold different fields of the same records, in the order of the first.

    None where a record is missing in one of them or changed in between (its stamp did): to be asked again.
    """
    first, *others = parts
    merged = dict.fromkeys(range(len(first.items)), b"")
    places: dict[str, int] = {}
    for place, item in enumerate(first.items):
        merged[place] = item
        record_id = _id_of(item, rules)
        if record_id is None or places.setdefault(record_id, place) != place:
            return None
    for other in others:
        if other.unreadable or len(other.items) != len(merged):
            return None
        left = set(places)
        for item in other.items:
            record_id = _id_of(item, rules)
            if record_id not in left:
                return None
            left.discard(record_id)
            place = places[record_id]
            if _stamped(item, rules) != _stamped(merged[place], rules):
                return None
            merged[place] = _merged(merged[place], item)
    return None if first.unreadable else Opened(list(merged.values()), [], first.envelope)


def _id_of(item: bytes, rules: Rules) -> str | None:
    return record_id_of(values_at(_including(item, rules), rules.record_id), rules.composite)


def _stamped(item: bytes, rules: Rules) -> bytes | None:
    return None if rules.updated_at is None else value_at(item, rules.updated_at)


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _merged(one: bytes, other: bytes) -> bytes:
    """Two objects as one, members that both have from the first, but for objects, which are merged too."""
    if one[:1] != b"{" or other[:1] != b"{":
        return one
    members = {name: bytes(value) for name, value in _members(one).items()}
    for name, value in _members(other).items():
        members[name] = _merged(members[name], bytes(value)) if name in members else bytes(value)
    return msgspec.json.encode({name: msgspec.Raw(value) for name, value in members.items()})


def names_reader(wanted: FieldList) -> Callable[[Answer, UtcTime], tuple[str, ...]]:
    """What reads the names of fields from the answer that describes them, in its order.

    Errors: when called, RetryableError `bad_answer`.
    """
    test = None if wanted.test is None else ConditionRule(split_path(wanted.test), frozenset(wanted.equals))
    records, name = split_path(wanted.records), split_path(wanted.name)

    def read(answer: Answer, _: UtcTime) -> tuple[str, ...]:
        items = open_answer(answer, records).items
        chosen = [item for item in items if test is None or test.holds(value_at(item, test.path))]
        return tuple(text for item in chosen if (text := scalar_text(value_at(item, name))))

    return read


def needed_names(names: Sequence[str], rules: Rules) -> tuple[str, ...]:
    """Those of `names` without which a record could not be known, dated, told from a deleted one or gone on from."""
    deleted = rules.deleted_when.path if rules.deleted_when is not None else None
    paths = [*rules.record_id, rules.updated_at, rules.key, rules.time, rules.signs.last, deleted]
    known = {".".join(path) for path in paths if path} | {end for path in paths if path for end in (path[0], path[-1])}
    return tuple(name for name in names if name in known)


def in_parts(names: Sequence[str], needed: Sequence[str], at_once: int) -> list[tuple[str, ...]]:
    """`names` in groups of at most `at_once`, each with those that are `needed` to join them by."""
    if len(names) <= at_once:
        return [tuple(names)]
    others = [name for name in names if name not in set(needed)]
    room = max(1, at_once - len(needed))
    return [(*needed, *others[start : start + room]) for start in range(0, len(others), room)]


# -- one record -------------------------------------------------------------------------------------------------------
def _items(opened: Opened, rules: Rules) -> Iterable[bytes]:
    """The records as they leave us, one at a time: a long answer must not stand in memory twice."""
    return map(partial(_including, rules=rules), opened.items) if rules.included else opened.items


def _including(item: bytes, rules: Rules) -> bytes:
    """A record with what it takes along of its parent: one key more, and no token touched."""
    return with_member(item, PARENT_KEY, rules.included) if rules.included else item


def _paths(rules: Rules) -> tuple[KeyPath, ...]:
    """Every place of a record that is looked at, in the order in which `_Parts` takes them."""
    condition = rules.deleted_when
    graves = [path for rule in rules.graves for path in (rule.record_id, rule.at, rule.when and rule.when.path)]
    return (
        *rules.record_id,
        *rules.links,
        *(path or _NOWHERE for path in graves),
        rules.key or _NOWHERE,
        rules.time or _NOWHERE,
        rules.updated_at or _NOWHERE,
        rules.signs.last or _NOWHERE,
        condition.path if condition is not None else _NOWHERE,
    )


class _Parts:
    """What was found at `_paths` of one record."""

    __slots__ = ("deleted", "grave_values", "key", "last", "link_values", "record_id", "stamped", "time")

    def __init__(self, values: Sequence[bytes | None], rules: Rules) -> None:
        ids, links = len(rules.record_id), len(rules.record_id) + len(rules.links)
        self.record_id = record_id_of(values[:ids], rules.composite)
        self.link_values = values[ids:links]
        self.grave_values = values[links:-5]
        self.key, self.time, self.stamped, self.last, flag = values[-5:]
        self.deleted = rules.deleted_when is not None and rules.deleted_when.holds(flag)


def _read_record(
    item: bytes, rules: Rules, paths: tuple[KeyPath, ...], latest_at: UtcTime, found: "_Found"
) -> VendorRecord | BadRecord:
    parts = _Parts(values_at(item, paths), rules)
    if parts.record_id is None:
        found.note(parts, rules, item)
        what = f"nothing to know it by at {_shown(rules.record_id)}"
        return BadRecord("missing_key", what, _without_dropped(item, rules))
    stamp = None
    if rules.updated_at is not None:
        try:
            stamp = read_stamp(parts.stamped, latest_at, rules.zone)
        except ValueError as err:
            found.note(parts, rules, item)
            what = f"{_shown([rules.updated_at])}: {err}"
            return BadRecord("unreadable_time", what, _without_dropped(item, rules), parts.record_id)
    payload = _without_dropped(item, rules)
    digest = digest_of(payload)
    found.note(parts, rules, item, digest, stamp)
    return VendorRecord(
        parts.record_id,
        payload,
        digest,
        stamp,
        parts.deleted,
        tuple([_text_of(value) or "" for value in parts.link_values]),
        _graves(parts.grave_values, rules, latest_at) if rules.graves else (),
    )


def _graves(values: Sequence[bytes | None], rules: Rules, latest_at: UtcTime) -> tuple[Grave, ...]:
    """Whom a record says to be gone. A time that cannot be read is none: that it is gone counts."""
    found: list[Grave] = []
    for place, rule in enumerate(rules.graves):
        record_id, at, told = values[place * 3 : place * 3 + 3]
        text = scalar_text(record_id)
        if not text or (rule.when is not None and not rule.when.holds(told)):
            continue
        stamp = None
        with contextlib.suppress(ValueError):
            stamp = read_stamp(at, latest_at, rules.zone)
        found.append(Grave(rule.endpoint, text, stamp))
    return tuple(found)


# -- what a page tells ------------------------------------------------------------------------------------------------
class _Found:
    """What the records of a page tell about the walk, noted one by one."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._times: list[str] = []
        self._rows: list[Row] = []
        self._first: str | None = None
        self._last: str | None = None
        self._cursor: str | None = None
        self._oldest: UtcTime | None = None
        self._newest: UtcTime | None = None
        self._whole = hashlib.blake2b(digest_size=16)

    def note(
        self, parts: _Parts, rules: Rules, item: bytes, digest: bytes | None = None, stamp: UtcTime | None = None
    ) -> None:
        """One record, usable or not, in order."""
        self._whole.update(item if digest is None else digest)
        self._whole.update(b"\n")
        self._note_key(parts, rules)
        if rules.signs.last is not None:
            self._cursor = scalar_text(parts.last)
        if parts.record_id is None:
            return
        self._first = self._first or parts.record_id
        self._last = parts.record_id
        if stamp is not None:
            self._oldest = stamp if self._oldest is None else min(self._oldest, stamp)
            self._newest = stamp if self._newest is None else max(self._newest, stamp)
        if rules.rows:
            content = digest_of(item) if digest is None else digest
            self._rows.append(Row(_short(parts.record_id.encode()), int.from_bytes(content[:8], "big"), stamp))

    def _note_key(self, parts: _Parts, rules: Rules) -> None:
        key = None if rules.key is None else scalar_text(parts.key)
        if key is None:
            return
        if rules.time is not None:
            time = scalar_text(parts.time)
            if time is None:
                return
            self._times.append(time)
        self._keys.append(key)

    def turn(self, answer: Answer, opened: Opened, rules: Rules) -> Turn:
        """All of it, with what stands around the records."""
        signs, envelope = rules.signs, opened.envelope
        return Turn(
            count=len(opened.items) + len(opened.unreadable),
            keys=tuple(self._keys),
            digest=self._whole.hexdigest(),
            times=tuple(self._times),
            rows=tuple(self._rows),
            cursor=self._cursor if signs.last is not None else _cursor(answer, envelope, signs),
            more=_flag(envelope, signs.more),
            end=_flag(envelope, signs.end),
            pages=_whole_number(envelope, signs.pages),
            total=_whole_number(envelope, signs.total),
            token=_told(envelope, signs.token),
            first=self._first,
            last=self._last,
            oldest=self._oldest,
            newest=self._newest,
        )


def next_link(header: str) -> str | None:
    """The address that a `Link` header calls `next`. Source: RFC 8288 3."""
    for link in _LINK.finditer(header):
        parameters = [(name.lower(), quoted or plain) for name, quoted, plain in _LINK_PARAMETER.findall(link.group(2))]
        relations = next((text for name, text in parameters if name == "rel"), "")  # the first counts
        if "next" in relations.lower().split():
            return link.group(1)
    return None


def _cursor(answer: Answer, envelope: bytes, signs: Signs) -> str | None:
    if signs.link:
        return next_link(answer.headers.get("link", ""))
    if signs.header is not None:
        found = answer.headers.get(signs.header)
        if found and found != "null":
            return found
    return _told(envelope, signs.cursor)


def _told(envelope: bytes, path: KeyPath | None) -> str | None:
    """A text or number beside the records, None where it is missing, null or empty."""
    return scalar_text(value_at(envelope, path)) or None if path is not None and envelope else None


def _flag(envelope: bytes, path: KeyPath | None) -> bool | None:
    value = value_at(envelope, path) if path is not None and envelope else None
    if value is None:
        return None
    text = _text_of(value)
    return text is not None and text.lower() not in ("false", "0", "", "no", "n")


def _whole_number(envelope: bytes, path: KeyPath | None) -> int | None:
    text = _told(envelope, path)
    return int(text) if text is not None and text.isdecimal() else None


def _text_of(value: bytes | None) -> str | None:
    """A scalar's text, a flag's too."""
    return value.decode() if value in (b"true", b"false") else scalar_text(value)


def _short(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


# -- what a record is known by ----------------------------------------------------------------------------------------
def _without_dropped(item: bytes, rules: Rules) -> bytes:
    """A readable record without what must never leave us, be it to the stream or to a dead letter."""
    left = without(item, rules.drop) if rules.drop else item
    for rule in rules.drop_items:
        left = without_items(left, rule.path, rule.drops)
    return left


def _withheld(data: bytes, rules: Rules) -> bytes:
    """An unreadable record as a dead letter may hold it: nobody can tell where in it the password stands."""
    if not rules.drop and not rules.drop_items:
        return data
    return f"withheld: {len(data)} bytes, digest {digest_of(data).hex()}".encode()


def record_id_of(parts: Sequence[bytes | None], composite: bool) -> str | None:
    """The id as text; of a composite key the JSON array of its parts' texts. None where a part is missing or empty."""
    texts = [scalar_text(part) for part in parts]
    if any(text is None or text == "" for text in texts):
        return None
    return msgspec.json.encode(texts).decode() if composite else texts[0]


def digest_of(payload: bytes) -> bytes:
    """What tells one payload from another."""
    return hashlib.blake2b(payload, digest_size=16).digest()


def _shown(paths: Sequence[KeyPath]) -> str:
    return ", ".join(repr(".".join(path)) for path in paths)
