"""The worlds as fixtures, and what holds a test to the way it is known to fail in."""

from collections.abc import AsyncIterator, Generator
from itertools import count

import pytest

from tests.runtime.kinesis_emulator import Emulator
from tests.runtime.ports.known_wrong import known
from tests.runtime.ports.worlds import (
    Kinesis,
    World,
    aws_kinesis,
    aws_world,
    everywhere_but,
    memory_kinesis,
    memory_world,
    simulated_kinesis,
    simulated_world,
)

_streams = count(1)


@pytest.fixture(params=everywhere_but("kinesalite", "kinesis-local"))
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    match request.param:
        case "memory":
            opened = memory_world()
        case "simulated":
            opened = simulated_world()
        case _:
            opened = aws_world(request.getfixturevalue("settings"))
    async with opened as ready:
        yield ready


@pytest.fixture(params=everywhere_but())
async def kinesis(request: pytest.FixtureRequest) -> AsyncIterator[Kinesis]:
    match request.param:
        case "memory":
            opened = memory_kinesis()
        case "simulated":
            opened = simulated_kinesis()
        case "ministack":
            opened = aws_kinesis(request.getfixturevalue("embedded_aws"))
        case name:
            node: Emulator = request.getfixturevalue(name.replace("-", "_"))
            opened = aws_kinesis(node.url, node.forward)
    async with opened as ready:
        yield ready


@pytest.fixture
async def stream(kinesis: Kinesis) -> str:
    """A stream of two shards that nobody else uses."""
    name = f"stream-{next(_streams)}"
    await kinesis.operator.create(name, 2)
    return name


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    parameters = pyfuncitem.callspec.params if hasattr(pyfuncitem, "callspec") else {}
    where = str(parameters.get("kinesis", parameters.get("world", "")))
    with known(where, pyfuncitem.originalname):
        return (yield)
