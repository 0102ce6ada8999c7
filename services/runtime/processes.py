"""Child processes of ours: started in sessions of their own, kept running, stopped together and cleanly.

A session of its own means that Ctrl-C in the terminal reaches the parent alone, which then stops its children in
order. Each child's standard input is a pipe that nobody writes to: when the parent dies, however it dies, the pipe
closes and the child stops by itself (`stop_when_orphaned`).
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from services.contracts.ports import Clock
from services.runtime.loop import pause

RESTART_FIRST_S, RESTART_MAX_S = 0.5, 30.0
SERVICES = ("extractor", "transformer", "compactor")
STOP_S = 30.0  # a child that has not ended by then is killed; nothing acknowledged is lost
SETTLED_S = 60.0  # a child that ran so long starts again without delay


class Program(msgspec.Struct, frozen=True):
    """One command of ours to keep running. `log` takes what it writes to stderr; stdout goes the same way."""

    name: str
    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str]


class Child:
    """A program that is kept running until it is stopped; `kill` is what a power cut would be to it."""

    def __init__(self, program: Program, clock: Clock, note: Callable[[str], None]) -> None:
        self.program, self._clock, self._note = program, clock, note
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self.starts = 0

    async def run(self) -> None:
        """Keep it running until `stop`."""
        pause_s = RESTART_FIRST_S
        while not self._stopping.is_set():
            started = self._clock.monotonic()
            code = await self._run_once()
            if self._stopping.is_set():
                return
            if self._clock.monotonic() - started > SETTLED_S:
                pause_s = RESTART_FIRST_S
            self._note(f"{self.program.name} ended ({_told(code)}), starting it again; its log: {self.program.log}")
            await pause(self._clock, self._stopping, pause_s)
            pause_s = min(RESTART_MAX_S, pause_s * 2)

    async def _run_once(self) -> int:
        self.starts += 1
        self.program.log.parent.mkdir(parents=True, exist_ok=True)
        with self.program.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command_line(self.program.arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(self.program.environment),
                start_new_session=True,
            )
        if self._stopping.is_set():  # asked while it was being started: whoever asked had nobody to signal
            self._signal(signal.SIGTERM)
        return await self._process.wait()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def kill(self) -> None:
        """SIGKILL, now. `run` starts it again."""
        self._signal(signal.SIGKILL)

    async def stop(self, seconds_max: float) -> bool:
        """SIGTERM, and after `seconds_max` SIGKILL. True if it ended by itself."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        if self._process is None:
            return True
        try:
            await asyncio.wait_for(self._process.wait(), seconds_max)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            return False
        return True

    def _signal(self, number: int) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(number)


def command_line(arguments: Sequence[str]) -> list[str]:
    """`avesa ARGUMENTS` by this interpreter, wherever the command itself may lie."""
    return [sys.executable, "-m", "services.cli.main", *arguments]


def _told(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def service_children(
    logs: Path,
    environment: Mapping[str, str],
    options: Sequence[str],
    clock: Clock,
    note: Callable[[str], None],
    workers: int = 1,
) -> list[Child]:
    """`workers` processes of each of the three services as children; `run` each of them in a task.

    They share the work by their leases. One of each is called as its service is, several `extractor-1` and so on.
    """
    return [
        Child(
            Program(name, [service, "--until-stdin-closes", *options], logs / f"{name}.log", environment), clock, note
        )
        for service in SERVICES
        for name in worker_names(service, workers)
    ]


def worker_names(service: str, workers: int) -> list[str]:
    """`transformer`, or `transformer-1`, `transformer-2` and so on."""
    return [service] if workers == 1 else [f"{service}-{number}" for number in range(1, workers + 1)]


async def stop_children(children: Sequence[Child], note: Callable[[str], None]) -> None:
    """All at once; who does not end in time is killed."""
    clean = await asyncio.gather(*(child.stop(STOP_S) for child in children))
    for child, ended in zip(children, clean, strict=True):
        if not ended:
            note(f"{child.program.name} did not stop within {STOP_S:.0f} s and was killed; what it had is read again")


def stop_when_orphaned() -> None:
    """For a child: end as at SIGTERM when the parent's end of our standard input closes."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="orphaned", daemon=True).start()
