"""The embedded AWS: ministack as a child process, on this machine's loopback only.

It knows nothing of the user's AWS (its environment is made here) and leaves nothing outside its directory:

    lock             held while it runs; two of them never share a directory
    state/           one JSON file per service, written when it ends
    s3/              the objects, written as they come
    ministack.log    its output of this run

What survives `stop` and a later `start` in the same directory (ministack 1.5.33, tests/sandbox/test_embedded.py):
Kinesis streams with their creation time, records, sequence numbers and even shard iterators; DynamoDB tables and
rows; S3 buckets and objects; secrets; Glue databases and tables. When we die without `stop` (SIGKILL, closed terminal)
it notices, saves all of that and ends by itself.

What does not survive: when ministack itself is killed hard (SIGKILL, power, no memory), everything since the last
clean end is lost but the S3 objects. The lake may then hold what positions do not know of yet; that is as after any
restart from old positions (faults.md rows 1 and 2), but rows and streams created since are gone.

What it cannot show, whatever we do (docs/unproven.md): SplitShard and MergeShards throw the parents' records away, so
never reshard on it; nothing is ever throttled; and iterators count records from the oldest held, so a consumer may skip
some when records expire (after seven days) while it runs.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import IO, Final, Self

from services.contracts.errors import FatalError, UsageError
from services.runtime.settings import Settings, child_environment

if sys.platform != "win32":
    import fcntl

HOST: Final = "127.0.0.1"
LEASE_S: Final = 10.0  # on one machine a dead process is noticed sooner than in a fleet
CUT_S: Final = 20.0  # and what changed reaches the tables sooner
START_S: Final = 60.0
POLL_S: Final = 0.05
STOP_S: Final = 60.0  # what is held is written as JSON: 0.7 s for 160 MB of records here
ORPHAN_WAIT_S: Final = 30.0
PORT_ATTEMPTS: Final = 5
NOT_SAVED: Final = b"Persistence: failed to save"  # it ends with 0 even then
LOG_TAIL_BYTES: Final = 2_000


class EmbeddedAws:
    """A running embedded AWS at `url`. Start and stop block for about a second: call them from a thread if need be."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, directory: Path, temporary: bool) -> None:
        self._process = process
        self._temporary = temporary
        self.port = port
        self.directory = directory

    @classmethod
    def start(cls, directory: Path | None = None, *, port: int | None = None) -> Self:
        """Run it with what `directory` holds (None: in a temporary one, removed at `stop`), on `port` or a free one.

        Errors: UsageError `port_taken`, `already_running` (somebody runs it in that directory) or `usage` (ministack
        is not installed); FatalError when it ends or stays silent instead of answering.
        """
        if importlib.util.find_spec("ministack") is None:
            raise UsageError("the embedded AWS is not installed", remedy="pip install 'avesa[embedded]'")
        home = Path(tempfile.mkdtemp(prefix="avesa-")) if directory is None else directory.absolute()
        try:
            home.mkdir(parents=True, exist_ok=True)
            with _locked(home) as lock:
                started = _start(home, port, lock)
        except BaseException:
            if directory is None:
                shutil.rmtree(home, ignore_errors=True)
            raise
        return cls(*started, home, temporary=directory is None)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.directory / "ministack.log"

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> bool:
        """End it with its state on disk; again: nothing. False when something could not be saved."""
        clean = _stop(self._process) == 0
        clean = clean and NOT_SAVED not in (self.log_file.read_bytes() if self.log_file.exists() else b"")
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)
        return clean

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def embedded_environment(settings: Settings, **extra: str) -> dict[str, str]:
    """The environment for children on the embedded AWS: nothing of the user's AWS is in it."""
    assert settings.endpoint_url is not None
    own = {
        "AWS_ENDPOINT_URL": settings.endpoint_url,
        "AWS_ACCESS_KEY_ID": str(settings.access_key),
        "AWS_SECRET_ACCESS_KEY": str(settings.secret_key),
        "AWS_REGION": settings.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "ENVIRONMENT": settings.environment,
        "AVESA_LEASE_S": str(LEASE_S),
        "AVESA_CUT_AGE_MAX_S": str(CUT_S),
        "AVESA_SPOOL_AGE_MAX_S": str(CUT_S),
    }
    return child_environment(**own | extra)


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _start(home: Path, port: int | None, lock: int | None) -> "tuple[subprocess.Popen[bytes], int]":
    if port is not None and _taken(port):
        raise UsageError(
            f"port {port} is taken", code="port_taken", remedy="Choose another with --port, or end what listens there."
        )
    for _ in range(PORT_ATTEMPTS):
        chosen = free_port() if port is None else port
        process = _spawn(home, chosen, lock)
        try:
            if _answers(process, chosen):
                return process, chosen
        except BaseException:
            _stop(process)
            raise
        silent = process.poll() is None
        _stop(process)
        if silent:
            raise FatalError(f"the embedded AWS did not answer within {START_S:.0f} s", remedy=_log_tail(home))
        if port is not None or not _taken(chosen):  # else somebody was faster: another port
            break
    raise FatalError("the embedded AWS ended at once", remedy=_log_tail(home))


def _spawn(home: Path, port: int, lock: int | None) -> "subprocess.Popen[bytes]":
    (home / "tmp").mkdir(exist_ok=True)
    environment = child_environment(
        BIND_HOST=HOST,
        GATEWAY_PORT=str(port),
        PERSIST_STATE="1",
        STATE_DIR=str(home / "state"),
        S3_PERSIST="1",
        S3_DATA_DIR=str(home / "s3"),
        LOG_LEVEL="WARNING",
        HOME=str(home / "tmp"),
        TMPDIR=str(home / "tmp"),
        # What else it would do by itself: listen on 8883, look for Docker and remove containers it thinks its own.
        IOT_MTLS_ENABLED="0",
        SFTP_ENABLED="0",
        DOCKER_HOST="unix:///nowhere",
        AWS_EC2_METADATA_DISABLED="true",
    )
    script = Path(__file__).with_name("embedded_child.py")
    log: IO[bytes]
    with (home / "ministack.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-P", str(script), str(STOP_S)],
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,  # never written to: its end tells the child that we are gone
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours to handle
            pass_fds=() if lock is None else (lock,),  # the lock lasts as long as the longest-lived of us
        )


def _answers(process: "subprocess.Popen[bytes]", port: int) -> bool:
    """Wait until it answers; False when it ended instead, or the time is up."""
    deadline = monotonic() + START_S
    while monotonic() < deadline:
        if _healthy(port):
            return process.poll() is None
        try:
            process.wait(POLL_S)
            return False
        except subprocess.TimeoutExpired:
            continue
    return False


def _healthy(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/_ministack/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: "subprocess.Popen[bytes]") -> int:
    """Its exit code, 0 when it ended by itself."""
    process.terminate()
    try:
        code = process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if process.stdin is not None:
        process.stdin.close()
    return code


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that just closed is not taken
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


@contextmanager
def _locked(home: Path) -> Iterator[int | None]:
    """Hold the directory's lock until the child holds it too. Where locks do not exist (Windows), nothing."""
    if sys.platform == "win32":
        yield None
        return
    with (home / "lock").open("a+") as lock:
        deadline = monotonic() + ORPHAN_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as err:
                lock.seek(0)
                owner = lock.read().strip()
                if _lives(owner) or monotonic() >= deadline:
                    raise UsageError(
                        f"an embedded AWS runs in {home} already (started by process {owner or 'unknown'})",
                        code="already_running",
                        remedy="Stop that one first, or choose another directory.",
                    ) from err
            sleep(POLL_S)  # whoever started it is gone: it is saving its state and ends by itself
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock.fileno()


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _log_tail(home: Path) -> str:
    log = home / "ministack.log"
    text = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip() if log.exists() else ""
    return f"Its last words ({log}): {text.splitlines()[-1] if text else 'none'}"
