"""An answer's bytes -> the records on it, each as the vendor wrote it. Pure.

The rest flow on: what cannot be used becomes a `BadRecord`, never an exception. Only an answer that cannot be taken
apart at all is an error, and a retryable one: it was cut off or was never a list.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec

from services.contracts.errors import Code, RetryableError
from services.contracts.json_text import without_lone_surrogates
from services.contracts.times import UtcTime, read_time, shifted, utc_text
from services.extractor.pagination import Turn
from services.extractor.raw_json import (
    BYTE_ORDER_MARK,
    CutOffError,
    Cuts,
    KeyPath,
    UnreadableError,
    compact,
    items_of,
    scalar_text,
    split_items,
    value_at,
    values_at,
    without,
    without_items,
)

RECORD_BYTES_MAX = 20_000_000
FUTURE_MAX_S = 86_400.0  # a stamp further ahead is no stamp
MILLISECONDS_FROM = 100_000_000_000  # as seconds that would be the year 5138, as milliseconds 1973
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ItemRule(msgspec.Struct, frozen=True):
    """Items of the list at `path` that are left out: those whose text at `test` is one of `equals`."""

    path: KeyPath
    test: KeyPath
    equals: frozenset[str]

    def drops(self, item: bytes) -> bool:
        return scalar_text(value_at(item, self.test)) in self.equals


class Rules(msgspec.Struct, frozen=True):
    """Where the parts of an endpoint's records lie. `key` is what a keyset walk is ordered by."""

    record_id: tuple[KeyPath, ...]
    composite: bool = False
    updated_at: KeyPath | None = None
    records: KeyPath = ()
    drop: Cuts = {}
    drop_items: tuple[ItemRule, ...] = ()
    key: KeyPath | None = None


class VendorRecord(msgspec.Struct, frozen=True, gc=False):
    """One record. `stamp` is the vendor's modification time; `digest` tells its payload from another (16 bytes)."""

    record_id: str
    payload: bytes
    digest: bytes
    stamp: UtcTime | None


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


def read_page(body: bytes, rules: Rules, observed_at: UtcTime) -> RecordPage:
    """The records of one answer. Errors: RetryableError `bad_answer`."""
    items, unreadable = open_answer(body, rules.records)
    records: list[VendorRecord] = []
    bad = [BadRecord("payload_unreadable", reason, _withheld(data, rules)) for data, reason in unreadable]
    keys: list[str] = []
    latest_at = shifted(observed_at, seconds=FUTURE_MAX_S)
    for item in items:
        if len(item) > RECORD_BYTES_MAX:
            what = f"{len(item)} bytes, more than {RECORD_BYTES_MAX}"
            bad.append(BadRecord("too_large", what, _without_dropped(item, rules)))
            _note_key(value_at(item, rules.key or ()), rules, keys)
            continue
        found = _read_record(item, rules, latest_at, keys)
        if isinstance(found, VendorRecord):
            records.append(found)
        else:
            bad.append(found)
    return RecordPage(tuple(records), tuple(bad), Turn(len(items) + len(unreadable), tuple(keys), _digest_text(items)))


def read_ids(body: bytes, rules: Rules) -> IdPage:
    """The ids of one answer; a record without one counts and is not listed. Errors: RetryableError `bad_answer`."""
    items, unreadable = open_answer(body, rules.records)
    ids: list[str] = []
    keys: list[str] = []
    for item in items:
        *parts, key = values_at(item, (*rules.record_id, rules.key or rules.record_id[0]))
        record_id = record_id_of(parts, rules.composite)
        if record_id is not None:
            ids.append(record_id)
        _note_key(key, rules, keys)
    turn = Turn(len(items) + len(unreadable), tuple(keys), _digest_text(items))
    return IdPage(tuple(ids), turn, garbled=bool(unreadable))


def open_answer(body: bytes, path: KeyPath) -> tuple[list[bytes], list[tuple[bytes, str]]]:
    """The items of the list at `path`, compact; and what is no JSON, each with the reason.

    Errors: RetryableError `bad_answer` for a body that ends early or holds no list there.
    """
    body = body.removeprefix(BYTE_ORDER_MARK)
    try:
        return _items_at(compact(body), path), []
    except UnreadableError:
        repaired = without_lone_surrogates(body)
    try:
        return _items_at(compact(repaired), path), []
    except UnreadableError as err:
        whole = err
    good: list[bytes] = []
    bad: list[tuple[bytes, str]] = []
    try:
        items = split_items(repaired, path)
    except (CutOffError, UnreadableError) as err:
        raise RetryableError(f"the answer is no readable list of records ({err})", code="bad_answer") from whole
    for item in items:
        try:
            good.append(compact(item))
        except UnreadableError as err:
            bad.append((item, str(err)))
    return good, bad


def _items_at(data: bytes, path: KeyPath) -> list[bytes]:
    found = value_at(data, path) if data != b"null" else data
    if found is None:
        raise RetryableError(f"the answer has nothing at {'.'.join(path)!r}", code="bad_answer")
    return [] if found == b"null" else items_of(found)


def _read_record(item: bytes, rules: Rules, latest_at: UtcTime, keys: list[str]) -> VendorRecord | BadRecord:
    places = [*rules.record_id, rules.key or rules.record_id[0], rules.updated_at or rules.record_id[0]]
    *parts, key, stamped = values_at(item, places)
    _note_key(key, rules, keys)
    record_id = record_id_of(parts, rules.composite)
    if record_id is None:
        what = f"nothing to know it by at {_shown(rules.record_id)}"
        return BadRecord("missing_key", what, _without_dropped(item, rules))
    stamp = None
    if rules.updated_at is not None:
        try:
            stamp = read_stamp(stamped, latest_at)
        except ValueError as err:
            what = f"{_shown([rules.updated_at])}: {err}"
            return BadRecord("unreadable_time", what, _without_dropped(item, rules), record_id)
    payload = _without_dropped(item, rules)
    return VendorRecord(record_id, payload, digest_of(payload), stamp)


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


def read_stamp(value: bytes | None, latest_at: UtcTime) -> UtcTime | None:
    """A modification time, None where there is none (null, empty, or beyond `latest_at`).

    Units:  text is RFC 3339 or ISO 8601; a number counts seconds or milliseconds since 1970, told by its size.
    Errors: ValueError for anything else.
    """
    if value is None or value in (b"null", b'""'):
        return None
    text = scalar_text(value)
    if text is None:
        raise ValueError(f"{value[:40].decode(errors='replace')} is not a time")
    stamp = read_time(text) if value[:1] == b'"' else _read_epoch(text)
    return None if stamp > latest_at else stamp


def _read_epoch(text: str) -> UtcTime:
    number = Decimal(text)
    seconds = number / 1000 if abs(number) >= MILLISECONDS_FROM else number
    try:
        return utc_text(_EPOCH + timedelta(microseconds=int(seconds * 1_000_000 // 1)))
    except (OverflowError, ArithmeticError):
        raise ValueError(f"{text[:40]} is not a time") from None


def digest_of(payload: bytes) -> bytes:
    """What tells one payload from another."""
    return hashlib.blake2b(payload, digest_size=16).digest()


def _digest_text(items: Sequence[bytes]) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for item in items:
        whole.update(item)
        whole.update(b"\n")
    return whole.hexdigest()


def _note_key(value: bytes | None, rules: Rules, keys: list[str]) -> None:
    key = None if rules.key is None else scalar_text(value)
    if key is not None:
        keys.append(key)


def _shown(paths: Sequence[KeyPath]) -> str:
    return ", ".join(repr(".".join(path)) for path in paths)
