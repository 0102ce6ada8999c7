"""Children of ours: how they are called, and that they end when they are asked to, whatever they are at."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from services.runtime.processes import (
    RESTART_FIRST_S,
    SERVICES,
    Child,
    Program,
    service_children,
    stop_children,
    worker_names,
)
from services.runtime.settings import child_environment
from tests.fakes import FakeClock


def child_of(folder: Path, clock: FakeClock, note: Callable[[str], None], *arguments: str) -> Child:
    return Child(Program("child", arguments, folder / "child.log", child_environment()), clock, note)


def test_one_process_is_called_as_its_service_and_several_are_numbered() -> None:
    assert worker_names("transformer", 1) == ["transformer"]
    assert worker_names("transformer", 3) == ["transformer-1", "transformer-2", "transformer-3"]


def test_every_process_of_a_fleet_is_of_one_service_and_has_a_log_of_its_own(tmp_path: Path) -> None:
    made = service_children(tmp_path, {}, ["--mappings", "m"], FakeClock(), lambda _: None, workers=2)
    assert [child.program.name for child in made] == [f"{service}-{n}" for service in SERVICES for n in (1, 2)]
    assert [child.program.arguments[0] for child in made] == [service for service in SERVICES for _ in (1, 2)]
    assert all(child.program.arguments[-2:] == ["--mappings", "m"] for child in made)
    assert len({child.program.log for child in made}) == len(made)


async def test_a_child_that_ends_is_started_again_until_it_is_stopped(tmp_path: Path) -> None:
    clock, said, twice = FakeClock(), list[str](), asyncio.Event()

    def note(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            twice.set()

    child = child_of(tmp_path, clock, note, "no-such-command")
    running = asyncio.create_task(child.run())
    await twice.wait()
    assert (child.starts, clock.monotonic()) == (2, RESTART_FIRST_S)
    assert said[0].startswith("child ended (exit code 2), starting it again; its log: ")
    await stop_children([child], note)
    await running
    assert (child.starts, child.running) == (2, False)


async def test_a_child_asked_to_stop_while_it_is_being_started_is_not_left_running(tmp_path: Path) -> None:
    child = child_of(tmp_path, FakeClock(), lambda _: None, "sandbox")  # would run for ever
    running = asyncio.create_task(child.run())
    await asyncio.sleep(0)
    assert await child.stop(0.0)
    await asyncio.wait_for(running, 60)
    assert (child.starts, child.running) == (1, False)
