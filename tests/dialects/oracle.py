"""What the raw stream must hold, from what the vendor holds and what it served.

The oracle knows every version of every record, when readers could first see it, and which answers reached the reader
whole. It knows nothing of marks, memories or walks. Its sentences:

    lost      a living record whose newest observation is not its present content; a record that is gone and whose
              newest observation is no deletion; a version that reached the reader in a list and never the stream
    doubled   the same content of a record twice in a row, but for what a reader that was broken off published again,
              the same to the microsecond
    wrong     an observation of what the vendor never showed; a deletion of a record that was there

What a record takes along of its parent is part of its content: it must be what the parent says now, or said once.

The newest observation is the one the fold lets survive (DESIGN 2.2): by `effective_at`, a delete before an upsert, then
by `observed_at`.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from services.contracts.events import ChangeEvent
from services.contracts.integration import PARENT_KEY, Endpoint, Integration
from services.contracts.reading import Sweep
from services.contracts.times import UtcTime, shifted, utc_text
from services.sandbox.vendors.hostility import HUGE_BYTES, Serving
from services.sandbox.vendors.store import Collection as Kind
from services.sandbox.vendors.store import Row, Store, drop_at, value_at

MARK: Final = re.compile(r"~(\d+)$")
SLACK_S: Final = 2.0  # a `Date` header is cut to seconds
_encode = msgspec.json.Encoder(decimal_format="number").encode
Key = tuple[str, str]  # family, record id


class Verdict(msgspec.Struct):
    """What was found, one sentence each. `observations`: how many events were looked at."""

    lost: list[str] = []
    doubled: list[str] = []
    wrong: list[str] = []
    observations: int = 0

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)

    @property
    def findings(self) -> list[str]:
        return [
            *(f"LOST {found}" for found in self.lost),
            *(f"DOUBLED {found}" for found in self.doubled),
            *(f"WRONG {found}" for found in self.wrong),
        ]


class Oracle:
    """Judges one stream against one vendor. `rough`: spans of time in which a reader was broken off. `doubted`:
    families whose sweeps showed too little to be believed where no record can be asked for: no deletion is expected."""

    def __init__(
        self,
        integration: Integration,
        store: Store,
        served: Sequence[Serving],
        rough: Sequence[tuple[UtcTime, UtcTime]] = (),
        doubted: Collection[str] = (),
    ) -> None:
        self._integration, self._store, self._served, self._rough = integration, store, served, rough
        self._doubted = doubted
        self._used = {name: made for name, made in store.collections.items() if name in integration.endpoints}
        self._names = {integration.family_of(name): name for name in reversed(self._used)}

    def judge(self, events: Sequence[ChangeEvent], arrivals: Sequence[UtcTime] = ()) -> Verdict:
        """`arrivals`: when each event arrived on the stream; without them nobody was ever broken off."""
        verdict = Verdict(observations=len(events))
        by_record: dict[Key, list[ChangeEvent]] = defaultdict(list)
        for event in events:
            by_record[self._integration.family_of(event.endpoint), event.record_id].append(event)
        for key, history in by_record.items():
            self._check_truth(key, history, verdict)
        self._check_doubles(events, arrivals or [""] * len(events), verdict)
        self._check_end(by_record, verdict)
        self._check_served(by_record, verdict)
        return verdict

    # -- every observation --------------------------------------------------------------------------------------------
    def _check_truth(self, key: Key, history: Sequence[ChangeEvent], verdict: Verdict) -> None:
        versions = self._versions(key)
        for event in history:
            if event.endpoint not in self._used:
                continue
            if event.op == "delete":
                if not _was_gone(versions, event):
                    verdict.wrong.append(f"{_named(event)} was there when it was said to be deleted")
                continue
            content = _content(event)
            row = self._shown_as(event.endpoint, content, versions)
            if row is None:
                verdict.wrong.append(f"{_named(event)} was never as observed: {_text(event)[:200]}")
            elif utc_text(row.seen_from) > shifted(event.observed_at, seconds=SLACK_S):
                verdict.wrong.append(f"{_named(event)} was observed before it was so")
            elif content.get(PARENT_KEY) not in self._parents_values(event.endpoint, row):
                verdict.wrong.append(f"{_named(event)} took along what its parent never said: {_text(event)[-200:]}")

    def _shown_as(self, endpoint: str, content: Any, versions: Iterable[Row]) -> Row | None:
        """The version that this content is of."""
        number = self._number(self._used[endpoint], content)
        return next((row for row in versions if row.version == number and row.deleted_at is None), None)

    def _number(self, made: Kind, content: Any) -> int | None:
        found = MARK.search(str(value_at(content, made.text)))
        return int(found.group(1)) if found is not None else None

    def _check_doubles(self, events: Sequence[ChangeEvent], arrivals: Sequence[UtcTime], verdict: Verdict) -> None:
        last: dict[tuple[str, str], tuple[UtcTime, ChangeEvent]] = {}
        for arrived_at, event in zip(arrivals, events, strict=True):
            before_at, before = last.get((event.endpoint, event.record_id), ("", None))
            last[event.endpoint, event.record_id] = arrived_at, event
            if before is None or (before.op, before.payload) != (event.op, event.payload):
                continue
            same = (before.effective_at, before.observed_at) == (event.effective_at, event.observed_at)
            broken_off = any(first <= arrived_at and before_at <= last_at for first, last_at in self._rough)
            if not same:
                verdict.doubled.append(f"{_named(event)} twice: {_when(before)} and {_when(event)}")
            elif not broken_off:
                verdict.doubled.append(f"{_named(event)} twice, and nobody was broken off: {_when(event)}")

    # -- the end ------------------------------------------------------------------------------------------------------
    def _check_end(self, by_record: Mapping[Key, Sequence[ChangeEvent]], verdict: Verdict) -> None:
        for name in self._used:
            verdict.lost += self._unread(name, by_record)
            for row in self._store.rows(name):
                newest = _newest(by_record.get(self._key(name, row.id), ()))
                if newest is not None and newest.op == "delete":
                    verdict.wrong.append(f"{_named(newest)} is there, and its newest observation is a deletion")
            if not self.tells_deletions(name) or self._is_doubted(name):
                continue
            for row in self._store.graves(name):
                newest = _newest(by_record.get(self._key(name, row.id), ()))
                if newest is not None and newest.op == "upsert":
                    verdict.lost.append(f"{_named(newest)}: its deletion at {row.deleted_at}")

    def _parents_values(self, name: str, row: Row) -> list[Any]:
        """What a record may have taken along of its parent, the last of which is what the parent says now; one None
        where records take nothing along."""
        parent = self._integration.endpoints[name].parent
        if parent is None or not parent.include:
            return [None]
        ids = self._integration.endpoints[parent.endpoint].record_id
        own = row.parent if isinstance(ids, str) else msgspec.json.decode(row.parent)[ids.index(parent.path)]
        said = []
        for version in self._store.history[parent.endpoint, row.parent]:
            if version.deleted_at is None:
                above = {**version.content, PARENT_KEY: self._parents_values(parent.endpoint, version)[-1]}
                values = {key: _told(value_at(above, path)) for key, path in parent.values.items()}
                said.append({key: (values | {parent.name: own})[key] for key in parent.include})
        return said

    def unread(self, events: Sequence[ChangeEvent]) -> list[str]:
        """Living records whose present content was not observed, or not last."""
        by_record: dict[Key, list[ChangeEvent]] = defaultdict(list)
        for event in events:
            by_record[self._integration.family_of(event.endpoint), event.record_id].append(event)
        return [found for name in self._used for found in self._unread(name, by_record)]

    def _unread(self, name: str, by_record: Mapping[Key, Sequence[ChangeEvent]]) -> Iterator[str]:
        made = self._used[name]
        for row in self._store.rows(name):
            newest = _newest(by_record.get(self._key(name, row.id), ()))
            if newest is None:
                yield f"{name} {row.id}: never observed (stamped {row.updated}, seen {row.seen_from})"
            elif newest.op == "upsert" and _content(newest).get(PARENT_KEY) != self._parents_values(name, row)[-1]:
                yield f"{_named(newest)}: its parent has {self._parents_values(name, row)[-1]}, {_text(newest)[-120:]}"
            elif newest.op == "upsert" and self._number(made, _content(newest)) != row.version:
                yield (
                    f"{_named(newest)}: newest is {_when(newest)} {_text(newest)[:120]}, the vendor has "
                    f"~{row.version} (stamped {row.updated}, seen {row.seen_from})"
                )

    def tells_deletions(self, name: str) -> bool:
        """Can a reader come to know what was deleted there?"""
        endpoint = self._integration.endpoints[name]
        if isinstance(endpoint.deletes or self._integration.deletes, Sweep) or endpoint.deleted_when is not None:
            return True
        stones = [stone for other in self._integration.endpoints.values() for stone in other.tombstones]
        return any(stone.endpoint == name for stone in stones)

    def _is_doubted(self, name: str) -> bool:
        deletes = self._integration.endpoints[name].deletes or self._integration.deletes
        cannot_ask = isinstance(deletes, Sweep) and deletes.confirm is None
        return cannot_ask and self._integration.family_of(name) in self._doubted

    # -- what was served ----------------------------------------------------------------------------------------------
    def _check_served(self, by_record: Mapping[Key, Sequence[ChangeEvent]], verdict: Verdict) -> None:
        """Every version that reached the reader in a list is on the stream."""
        published: dict[str, set[int | None]] = defaultdict(set)
        for history in by_record.values():
            for event in history:
                if event.op == "upsert" and event.endpoint in self._used:
                    number = self._number(self._used[event.endpoint], _content(event))
                    published[event.endpoint].add(number)
        said: set[int] = set()
        for serving in self._served:
            shown = serving.answer.shown
            if shown is None or not (serving.honest and serving.delivered) or not self._demanded(serving):
                continue
            for row in shown.rows:
                missing = row.deleted_at is None and row.version not in published[shown.collection]
                if missing and row.version not in said and not _huge(row, self._used[shown.collection]):
                    said.add(row.version)
                    verdict.lost.append(
                        f"{shown.collection} {row.id} ~{row.version}: served at {serving.request.at} "
                        f"({serving.request.url()}) and not on the stream"
                    )

    def _demanded(self, serving: Serving) -> bool:
        """Was this a list of whole records, read for their content?"""
        shown = serving.answer.shown
        if shown is None or not shown.whole or shown.one or shown.collection not in self._used:
            return False
        if self._was_rough(utc_text(serving.request.at)):
            return False
        endpoint = self._integration.endpoints[shown.collection]
        deletes = endpoint.deletes or self._integration.deletes
        if not isinstance(deletes, Sweep):
            return True
        if deletes.path is not None:
            return True
        asked = serving.request.query
        return bool(deletes.params) and any(asked.get(name) != value for name, value in deletes.params.items())

    def check_contents(self, events: Sequence[ChangeEvent]) -> list[str]:
        """Observations whose payload is not, value by value, what an answer showed (without what is dropped)."""
        shown_as: dict[tuple[str, int], list[Any]] = defaultdict(list)
        for serving in self._served:
            shown = serving.answer.shown
            if shown is not None and shown.whole:
                for row, content in zip(shown.rows, shown.contents, strict=True):
                    shown_as[shown.collection, row.version].append(content)
        found = []
        for event in events:
            endpoint = self._integration.endpoints.get(event.endpoint)
            if (
                event.op != "upsert"
                or endpoint is None
                or event.endpoint not in self._used
                or endpoint.fields is not None
            ):
                continue
            content = {key: value for key, value in _content(event).items() if key != PARENT_KEY}
            number = self._number(self._used[event.endpoint], content)
            candidates = shown_as.get((event.endpoint, number or 0), [])
            if not any(_without(one, endpoint, self._integration) == content for one in candidates):
                found.append(f"{_named(event)}: {_text(event)[:200]}")
        return found

    # -----------------------------------------------------------------------------------------------------------------
    def _key(self, name: str, record_id: str) -> Key:
        return self._integration.family_of(name), record_id

    def _versions(self, key: Key) -> list[Row]:
        family, record_id = key
        names = [name for name in self._used if self._integration.family_of(name) == family]
        return [row for name in names for row in self._store.history.get((name, record_id), [])]

    def _was_rough(self, time: UtcTime) -> bool:
        return any(first <= time <= last for first, last in self._rough)


def _newest(history: Sequence[ChangeEvent]) -> ChangeEvent | None:
    return max(history, key=lambda event: (event.effective_at, event.op == "delete", event.observed_at), default=None)


def _was_gone(versions: Sequence[Row], event: ChangeEvent) -> bool:
    """Was the record not to be seen at any time from when it is said to be gone to when that was observed?"""
    first = shifted(min(event.effective_at, event.observed_at), seconds=-SLACK_S)
    last = shifted(max(event.effective_at, event.observed_at), seconds=SLACK_S)
    if not versions or utc_text(versions[0].seen_from) > first:
        return True
    for place, row in enumerate(versions):
        until = utc_text(versions[place + 1].seen_from) if place + 1 < len(versions) else "9"
        if row.deleted_at is not None and utc_text(row.seen_from) <= last and until >= first:
            return True
    return False


def _huge(row: Row, made: Kind) -> bool:
    return len(str(value_at(row.content, made.text))) >= HUGE_BYTES


def _without(content: Any, endpoint: Endpoint, integration: Integration) -> Any:
    """A record as it may leave the extractor."""
    kept = msgspec.json.decode(_encode(content))
    for path in endpoint.drop:
        drop_at(kept, path)
    for rule in integration.drop_items:
        items = value_at(kept, rule.path)
        if isinstance(items, list):
            items[:] = [item for item in items if str(value_at(item, rule.test)) not in rule.equals]
    return kept


def _told(value: Any) -> str | None:
    """A value of a parent, as its children take it along."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) and value != "" else None


def _content(event: ChangeEvent) -> Any:
    return msgspec.json.decode(_text(event))


def _text(event: ChangeEvent) -> str:
    """The payload, empty for a deletion."""
    return "" if event.payload is msgspec.UNSET else bytes(event.payload).decode()


def _named(event: ChangeEvent) -> str:
    return f"{event.endpoint} {event.record_id}"


def _when(event: ChangeEvent) -> str:
    return f"{event.op}@{event.effective_at} read {event.observed_at} ({event.evidence}, {event.source})"
