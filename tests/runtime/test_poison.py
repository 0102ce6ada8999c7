"""Poison: what ends whoever reads it is found in a bounded number of deaths, and nothing else is lost with it."""

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from services.contracts.errors import FatalError, RetryableError
from services.contracts.log import Event, PoisonIsolated, PoisonSuspected
from services.runtime.leases import Lease, Leases
from services.runtime.poison import (
    CALM_AFTER,
    CONVICTED_MAX,
    CONVINCED_AFTER,
    SUSPICIOUS_AFTER,
    WHOLE,
    Inquest,
    Isolation,
    Readings,
    Span,
    Suspect,
    halves,
    span_of,
)
from tests.fakes import FakeChance, FakeClock, MemoryRows

LEASE_S = 10.0
Line = tuple[str, int]
ATTEMPTS_MAX = 500


class Killed(BaseException):
    """The process is gone."""


class Shard:
    """Records of some lines, and workers one after the other that read them, each until it dies.

    `fatal` lines end whoever reads them, `raising` ones raise; (sequence, WHOLE) is about opening the record.
    `fatal_together` ends whoever reads that many lines at once; `fatal_to_publish` records end whoever takes them for
    good. `read` is what was taken and committed, by line.
    """

    def __init__(
        self,
        records: Mapping[str, int],
        fatal: set[Line] | None = None,
        raising: set[Line] | None = None,
        fatal_together: int | None = None,
        fatal_to_publish: set[str] | None = None,
        divisible: bool = True,
        at_once: int = 1_000,
    ) -> None:
        self.suspects = [Suspect(sequence, lines, lines) for sequence, lines in records.items()]
        self.fatal, self.raising = fatal or set(), raising or set()
        self.fatal_together, self.fatal_to_publish = fatal_together, fatal_to_publish or set()
        self.divisible, self.at_once = divisible, at_once
        self.clock = FakeClock()
        self.rows = MemoryRows({"Leases": ("scope", "name")})
        self.read: list[Line] = []
        self.letters: dict[Line, int] = {}
        self.deaths = 0
        self.said: list[Event] = []
        self.interrupt: Callable[[], None] = lambda: None
        self._workers = 0

    async def worker(self) -> tuple[Lease, Inquest]:
        self._workers += 1
        self.clock.advance(LEASE_S)
        leases = Leases(self.rows, "Leases", self.clock, FakeChance(self._workers), lambda _: None, LEASE_S)
        lease = await leases.wait_for("raw", "shard", 3 * LEASE_S)
        assert lease is not None
        return lease, Inquest(lease, await lease.committed(), self.said.append, divisible=self.divisible)

    async def work(self) -> None:
        """Worker after worker, until everything is read."""
        for _ in range(ATTEMPTS_MAX):
            lease, inquest = await self.worker()
            try:
                await self.live(lease, inquest)
                return
            except Killed:
                self.deaths += 1
        raise AssertionError("it is never done")

    async def live(self, lease: Lease, inquest: Inquest) -> None:
        """One worker's life: batch by batch, committed each."""
        row = await lease.committed()
        ahead = [one for one in self.suspects if int(one.sequence) > int(row.get("position") or 0)]
        for start in range(0, len(ahead), self.at_once):
            batch: Sequence[Suspect] = ahead[start : start + self.at_once]
            groups = await inquest.search(batch, self.probe) if inquest.suspicious else [batch]
            for group in groups:
                if inquest.suspicious:
                    await inquest.begin(group)
                sequences = [one.sequence for one in group]
                if self.fatal_to_publish & {s for s in sequences if WHOLE not in inquest.reading(s).convicted}:
                    raise Killed
                readings = inquest.readings(sequences)
                lines = self._read(sequences, readings)
                letters = {(s, n): one.attempts for s, r in readings.items() for n, one in r.convicted.items()}
                await lease.commit({"position": sequences[-1], **inquest.closing(sequences[-1])})
                self.read += lines
                self.letters |= letters

    async def probe(self, sequences: Sequence[str], readings: Readings) -> None:
        await asyncio.sleep(0)
        self.interrupt()
        self._read(sequences, readings)

    def _read(self, sequences: Sequence[str], readings: Readings) -> list[Line]:
        found: list[Line] = []
        sizes = {one.sequence: one.lines for one in self.suspects}
        for sequence in sequences:
            reading = readings.get(sequence)
            if reading is not None and WHOLE in reading.convicted:
                continue
            self._meet((sequence, WHOLE))
            for line in range(sizes[sequence]):
                if reading is None or (reading.tries(line) and line not in reading.convicted):
                    self._meet((sequence, line))
                    found.append((sequence, line))
        if self.fatal_together is not None and len(found) >= self.fatal_together:
            raise Killed
        return found

    def _meet(self, line: Line) -> None:
        if line in self.fatal:
            raise Killed
        if line in self.raising:
            raise ZeroDivisionError

    @property
    def lines(self) -> set[Line]:
        return {(one.sequence, line) for one in self.suspects for line in range(one.lines)}

    async def row(self) -> dict[str, Any]:
        return await self.rows.get("Leases", {"scope": "raw", "name": "shard"}) or {}


def some_records(chance: random.Random, count: int) -> dict[str, int]:
    sequence, found = 0, {}
    for _ in range(count):
        sequence += chance.randint(1, 1_000)
        found[str(sequence)] = chance.randint(1, 60)
    return found


@pytest.mark.parametrize("seed", range(12))
async def test_a_fatal_line_among_thousands_is_convicted_in_few_deaths_and_all_others_are_read(seed: int) -> None:
    chance = random.Random(seed)
    shard = Shard(some_records(chance, 120))
    assert len(shard.lines) > 1_500
    shard.fatal = {chance.choice(sorted(shard.lines))}
    await shard.work()
    assert set(shard.letters) == shard.fatal
    assert sorted(shard.read) == sorted(shard.lines - shard.fatal)
    assert shard.deaths <= SUSPICIOUS_AFTER + math.log2(len(shard.lines)) + 2 + CONVINCED_AFTER
    assert [event.count for event in shard.said if isinstance(event, PoisonIsolated)] == [1]
    assert next(event.deaths for event in shard.said if isinstance(event, PoisonSuspected)) == SUSPICIOUS_AFTER


async def test_a_search_after_the_first_commit_still_tells_how_many_died() -> None:
    shard = Shard({"1": 3})
    for _ in range(SUSPICIOUS_AFTER):
        await shard.worker()
    lease, inquest = await shard.worker()
    await lease.commit({"position": "0"})
    await inquest.search(shard.suspects, shard.probe)
    assert [event.deaths for event in shard.said if isinstance(event, PoisonSuspected)] == [SUSPICIOUS_AFTER]


@pytest.mark.parametrize("seed", range(12))
async def test_several_fatal_lines_and_records_are_found_one_after_the_other(seed: int) -> None:
    chance = random.Random(seed)
    shard = Shard(some_records(chance, 60), at_once=chance.choice([7, 60]))
    lines = sorted(shard.lines)
    shard.fatal = {*chance.sample(lines, 3), (chance.choice(lines)[0], WHOLE)}
    unreadable = {sequence for sequence, line in shard.fatal if line == WHOLE}
    await shard.work()
    assert {line for line in shard.lines if line[0] not in unreadable} - shard.fatal == set(shard.read)
    assert {line for line in shard.letters if line[0] in unreadable and line[1] != WHOLE} <= shard.fatal
    assert shard.fatal <= {*shard.letters, *((sequence, line) for sequence in unreadable for line in range(60))}
    assert shard.deaths <= 4 * (SUSPICIOUS_AFTER + math.log2(len(lines)) + 2 + CONVINCED_AFTER)


async def test_what_raises_is_convicted_in_one_life_and_named_by_its_error() -> None:
    chance = random.Random(7)
    shard = Shard(some_records(chance, 80))
    shard.raising = set(chance.sample(sorted(shard.lines), 5))
    await (await shard.worker())[0].release(badly=True)
    await (await shard.worker())[0].release(badly=True)
    lease, inquest = await shard.worker()
    assert inquest.suspicious
    await shard.live(lease, inquest)
    assert set(shard.letters) == shard.raising
    assert set(shard.read) == shard.lines - shard.raising
    assert sum(event.count for event in shard.said if isinstance(event, PoisonIsolated)) == 5


async def test_a_record_that_raises_as_it_is_opened_is_convicted_whole() -> None:
    shard = Shard({"1": 5, "2": 0, "3": 5}, raising={("1", WHOLE), ("2", WHOLE)})
    await (await shard.worker())[0].release(badly=True)
    await (await shard.worker())[0].release(badly=True)
    await shard.live(*await shard.worker())
    assert set(shard.letters) == {("1", WHOLE), ("2", WHOLE)}
    assert len(shard.read) == 5


async def test_an_owner_after_fewer_deaths_searches_nothing() -> None:
    shard = Shard({"1": 3})
    for deaths in range(SUSPICIOUS_AFTER + 1):
        lease, inquest = await shard.worker()
        assert lease.deaths == deaths
        assert inquest.suspicious == (deaths == SUSPICIOUS_AFTER)


async def test_suspicion_ends_when_enough_was_searched_and_nothing_found() -> None:
    shard = Shard({str(number): 1 for number in range(1, 2 * CALM_AFTER)}, at_once=1)
    await shard.worker()
    await shard.worker()
    lease, inquest = await shard.worker()
    await shard.live(lease, inquest)
    assert not inquest.suspicious
    row = await shard.row()
    assert not {"trial", "poison", "deaths"} & set(row)


async def test_a_death_that_no_trial_shows_is_isolated_by_taking_records_one_at_a_time() -> None:
    shard = Shard({str(number): 4 for number in range(1, 41)}, fatal_to_publish={"23"})
    await shard.work()
    assert set(shard.letters) == {("23", WHOLE)}
    assert set(shard.read) == {line for line in shard.lines if line[0] != "23"}
    assert shard.deaths <= SUSPICIOUS_AFTER + 1 + CONVINCED_AFTER


async def test_what_is_fatal_only_in_large_numbers_is_read_in_small_ones_and_convicts_nobody() -> None:
    shard = Shard({str(number): 10 for number in range(1, 41)}, fatal_together=300)
    await shard.work()
    assert (shard.letters, set(shard.read)) == ({}, shard.lines)


async def test_where_records_cannot_be_taken_apart_the_largest_goes_until_the_rest_is_bearable() -> None:
    sizes = {str(number): 10 for number in range(1, 11)} | {"5": 80, "7": 60}
    shard = Shard(sizes, fatal_together=130, divisible=False)
    await shard.work()
    assert set(shard.letters) == {("5", WHOLE), ("7", WHOLE)}
    assert set(shard.read) == {line for line in shard.lines if line[0] not in {"5", "7"}}


class DiesOnceBesides(Shard):
    """Whose worker dies once, of something else, in a trial of innocent records."""

    happened = False

    async def probe(self, sequences: Sequence[str], readings: Readings) -> None:
        if "9" not in sequences and not self.happened:
            self.happened = True
            raise Killed
        await super().probe(sequences, readings)


async def test_after_a_death_in_the_trial_of_an_innocent_the_guilty_is_found_though_nothing_is_taken_alone() -> None:
    shard = DiesOnceBesides({"1": 20} | {str(n): 4 for n in range(2, 12)}, fatal={("9", 2)}, divisible=False)
    await shard.work()
    assert shard.happened
    assert set(shard.letters) == {("9", 2)}
    assert set(shard.read) == shard.lines - {("9", 2)}


async def test_a_search_goes_on_alone_and_other_work_side_by_side() -> None:
    isolation, done = Isolation(), asyncio.Event()
    at_once: list[str] = []
    seen: list[tuple[str, ...]] = []

    async def work(name: str) -> None:
        async with isolation.beside_others():
            at_once.append(name)
            seen.append(tuple(at_once))
            await done.wait()
            at_once.remove(name)

    async def search() -> None:
        async with isolation.alone():
            assert at_once == []
            seen.append(("search",))

    tasks = [asyncio.create_task(one) for one in (work("a"), work("b"), search(), work("c"))]
    for _ in range(20):
        await asyncio.sleep(0)
    assert seen == [("a",), ("a", "b")]
    done.set()
    await asyncio.gather(*tasks)
    assert seen == [("a",), ("a", "b"), ("search",), ("c",)]


@pytest.mark.parametrize("seed", range(20))
async def test_machines_that_die_at_any_moment_convict_no_innocent(seed: int) -> None:
    chance = random.Random(seed)
    shard = Shard(some_records(chance, 30), at_once=10)

    def die() -> None:
        if chance.random() < 0.3:
            raise Killed

    shard.interrupt = die
    await shard.work()
    assert shard.letters == {}
    assert sorted(shard.read) == sorted(shard.lines)


async def test_a_trial_that_was_let_go_of_cleanly_was_not_fatal() -> None:
    shard = Shard({"1": 4})
    lease, inquest = await shard.worker()
    await inquest.begin(shard.suspects)
    await lease.release()
    _, inquest = await shard.worker()
    assert not inquest.suspicious


async def test_an_error_that_was_meant_convicts_nobody() -> None:
    shard = Shard({"1": 4})
    await shard.worker()
    await shard.worker()
    _, inquest = await shard.worker()

    async def full(*_: object) -> None:
        raise RetryableError("no room", code="disk_full")

    with pytest.raises(RetryableError):
        await inquest.search(shard.suspects, full)
    assert inquest.readings(["1"]) == {}


async def test_a_program_that_can_read_nothing_any_more_stops_loudly() -> None:
    shard = Shard({"1": CONVICTED_MAX + 1})
    shard.raising = shard.lines
    await shard.worker()
    await shard.worker()
    _, inquest = await shard.worker()
    with pytest.raises(FatalError, match="reasons nobody foresaw"):
        await inquest.search(shard.suspects, shard.probe)


async def test_convictions_are_known_to_the_next_owner_before_anything_is_taken_for_good() -> None:
    shard = Shard({"1": 4, "2": 4}, fatal={("2", 1)})
    await shard.work()
    again = Shard({"1": 4, "2": 4}, fatal={("2", 1)})
    again.fatal_to_publish = {"1"}  # dies once more, with the conviction in the row
    for _ in range(9):
        with pytest.raises(Killed):
            await again.live(*await again.worker())
    _, inquest = await again.worker()
    assert [*inquest.reading("2").convicted] == [1]
    assert inquest.reading("2").attempts(1) > CONVINCED_AFTER


@pytest.mark.parametrize("seed", range(20))
def test_halving_reaches_every_line_and_every_opening_once(seed: int) -> None:
    chance = random.Random(seed)
    suspects = [Suspect(sequence, lines, 0) for sequence, lines in some_records(chance, 17).items()]
    smallest: list[Span] = []
    spans = [span_of(suspects)]
    while spans:
        parts = halves(spans[-1], suspects)
        if parts is None:
            smallest.append(spans.pop())
        else:
            spans[-1:] = reversed(parts)
    expected = [
        Span(one.sequence, one.sequence, line, line + 1 if line >= 0 else 0)
        for one in suspects
        for line in range(-1, one.lines)
    ]
    assert smallest == [msgspec.structs.replace(span, start=max(0, span.start)) for span in expected]
