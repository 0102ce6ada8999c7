"""Faults of what is read: a record that kills, and records that are gone before anybody read them."""

import asyncio
from collections.abc import Iterable
from random import Random
from typing import Any, Final

import msgspec

from services.contracts.envelope import split
from services.contracts.errors import RejectedError
from services.contracts.gaps import SCOPE
from services.contracts.log import PoisonIsolated, PositionExpired
from services.runtime.dead_letters import DeadLetter
from services.runtime.envelopes import unseal
from services.runtime.poison import ALL, WHOLE, Reading
from tests.simulation.calls import Call, Twist
from tests.simulation.faults import injector
from tests.simulation.vendor import POISON_ID, TABLES, TENANTS
from tests.simulation.world import World

POISON: Final = str(POISON_ID).encode()
LETTER_S: Final = 10.0  # after it, what was held up by the record is committed
ISOLATED_MAX_S: Final = 330.0  # some ten deaths, of a lease time and a start each
HOUR_S: Final = 3_600.0
HOURS_DOWN: Final = 27  # more than retention
# The archive must hold what arrived meanwhile (a cut's age, twice where it was healed itself), looked at each minute.
HEALED_MAX_S: Final = 340.0


# -- 23 ---------------------------------------------------------------------------------------------------------------
@injector(23, emits=(PoisonIsolated,), every=5)
async def record_that_kills_whoever_reads_it(world: World, random: Random) -> None:
    """The process dies in the midst of the pure work, whenever that meets the record, until it is a dead letter."""
    tenant_id, name = random.choice(TENANTS), random.choice(list(TABLES))
    works = random.choice((("transform", "rehearse"), ("contents raw",), ("contents canonical",)))

    def intercept(call: Call) -> Twist | None:
        if call.name != "threads.run" or _work(call) not in works or not any(POISON in line for line in _read_by(call)):
            return None
        world.strike(23, f"{call.process.name} dies of {POISON_ID} in {call.subject}")
        return Twist(kill="before")

    mended = world.intercept(intercept, first=True)  # before whatever else befalls its reader
    world.vendor.poison(tenant_id, name)
    try:
        for _ in range(int(ISOLATED_MAX_S)):
            await asyncio.sleep(1.0)
            letters = [letter for letter in _letters(world, tenant_id) if letter.code == "poison"]
            if any(str(POISON_ID) in (letter.text or "") for letter in letters):
                await asyncio.sleep(LETTER_S)
                return
    finally:
        mended()  # a new release: copies that come later do no harm
    if world.alone:  # else it may have come several times, and each copy is searched for
        world.object("lost", f"{POISON_ID} is no dead letter after {world.struck[23]} deaths")


def _work(call: Call) -> str:
    return f"{call.subject} {call.detail[0]}" if call.subject == "contents" else call.subject


def _read_by(call: Call) -> Iterable[bytes]:
    """The lines that a piece of pure work opens."""
    arguments: tuple[Any, ...] = call.detail
    if call.subject == "contents":
        readings = arguments[4]
        for record in arguments[2]:
            yield from _lines(record.data, readings.get(record.sequence, ALL))
    else:
        for envelope in arguments[0]:
            yield from _lines(envelope.data, envelope.reading)


def _lines(data: bytes, reading: Reading) -> Iterable[bytes]:
    try:
        header, packed = split(data)
        lines = [] if WHOLE in reading.convicted else unseal(header, packed)
    except RejectedError:
        return
    for number, line in enumerate(lines):
        if reading.tries(number) and number not in reading.convicted:
            yield line


def _letters(world: World, tenant_id: str) -> list[DeadLetter]:
    held = world.aws.objects.held
    found = [held[key] for key in sorted(held) if key.startswith(f"{tenant_id}/dead-letter/")]
    return [msgspec.json.decode(data, type=DeadLetter) for data in found]


# -- 30 ---------------------------------------------------------------------------------------------------------------
@injector(30, emits=(PositionExpired,), every=10)
async def transformers_down_for_longer_than_retention(world: World, random: Random) -> None:
    """What they did not read is gone from the stream, and is read again from the archive."""
    down = True

    def intercept(call: Call) -> Twist | None:
        return Twist(kill="before") if down and call.process.service == "transformer" else None

    stop = world.intercept(intercept, first=True)
    try:
        for _ in range(HOURS_DOWN):
            world.clock.leap(HOUR_S)
            await asyncio.sleep(random.uniform(1.5, 2.0))
    finally:
        down = False
        stop()
    world.strike(30, f"no transformer worked for {HOURS_DOWN} hours")
    for _ in range(int(HEALED_MAX_S / 5)):
        await asyncio.sleep(5.0)
        rows = await world.aws.rows.rows(world.names.leases)
        if world.said(PositionExpired) and not any(row["scope"] == SCOPE for row in rows):
            return
    world.object("stalled", "what expired unread is not read again")
