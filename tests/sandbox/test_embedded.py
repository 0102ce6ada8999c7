import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.contracts.errors import UsageError
from services.contracts.ports import Entry
from services.runtime import provision
from services.runtime.aws import connect, open_clients
from services.runtime.settings import Settings
from services.sandbox.embedded import EmbeddedAws, free_port

pytestmark = pytest.mark.emulator

SECRET = "avesa/dev/acme/connectwise"
KEY = {"scope": "raw", "name": "shardId-000000000000"}
OWNER = """
import sys, time
from pathlib import Path
from services.sandbox.embedded import EmbeddedAws
aws = EmbeddedAws.start(Path(sys.argv[1]))
print(aws.url, flush=True)
time.sleep(600)
"""


async def fill(url: str) -> str:
    """Something in every service; gives an iterator that has not been used."""
    settings = Settings.embedded(url)
    await provision.ensure(settings)
    async with connect(settings) as aws, open_clients(settings, "glue") as clients:
        stream = settings.names.raw_stream
        await aws.streams.put(stream, [Entry(bytes(range(256)), "p", 0), Entry(b"second", "p", 0)])
        await aws.rows.write(settings.names.leases, KEY, {"epoch": 3, "bytes": b"\xff", "list": [1, None]})
        await aws.objects.create("acme/a b.parquet", b"PAR1\x00")
        await aws.secrets.put(SECRET, {"key": "value"})
        table = {"Name": "tickets", "Parameters": {"metadata_location": "s3://x/1.json"}}
        await clients["glue"].call("create_database", "db", DatabaseInput={"Name": "avesa_dev_acme"})
        await clients["glue"].call("create_table", "table", DatabaseName="avesa_dev_acme", TableInput=table)
        return await aws.streams.iterator(stream, "shardId-000000000000", None)


async def held(url: str, iterator: str) -> dict[str, Any]:
    """All that `fill` put."""
    settings = Settings.embedded(url)
    async with connect(settings) as aws, open_clients(settings, "glue") as clients:
        stream = settings.names.raw_stream
        glue = await clients["glue"].call("get_table", "table", DatabaseName="avesa_dev_acme", Name="tickets")
        return {
            "missing": await provision.missing(settings),
            "stream": await aws.streams.describe(stream),
            "records": (await aws.streams.read(stream, iterator, 10)).records,
            "row": await aws.rows.get(settings.names.leases, KEY),
            "object": await aws.objects.get("acme/a b.parquet"),
            "objects": [info.key async for info in aws.objects.list("")],
            "secret": await aws.secrets.get(SECRET),
            "glue": (glue["Table"]["Parameters"], glue["Table"]["VersionId"]),
        }


@contextmanager
def owner_process(directory: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A process of its own that runs an embedded AWS, and its url."""
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", OWNER, str(directory)]
    owner = subprocess.Popen(command, cwd=root, env={"PYTHONPATH": root}, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    try:
        yield owner, owner.stdout.readline().strip()
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()


async def test_everything_survives_a_stop_and_a_start(tmp_path: Path) -> None:
    with EmbeddedAws.start(tmp_path) as aws:
        iterator = await fill(aws.url)
        before = await held(aws.url, iterator)
        assert aws.stop()
    assert before["missing"] == []
    assert len(before["records"]) == 2
    with EmbeddedAws.start(tmp_path) as aws:
        assert await held(aws.url, iterator) == before


async def test_sequences_still_grow_after_a_restart(tmp_path: Path) -> None:
    sequences = []
    for _ in range(2):
        with EmbeddedAws.start(tmp_path) as aws:
            settings = Settings.embedded(aws.url)
            await provision.ensure(settings)
            async with connect(settings) as ports:
                puts = await ports.streams.put(settings.names.raw_stream, [Entry(b"a", "p", 0)] * 3)
                sequences += [int(put.sequence) for put in puts]
    assert sequences == sorted(set(sequences))


async def test_when_its_owner_is_killed_it_saves_everything_and_ends(tmp_path: Path) -> None:
    with owner_process(tmp_path) as (owner, url):
        iterator = await fill(url)
        before = await held(url, iterator)
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        with EmbeddedAws.start(tmp_path) as aws:  # waits for the orphan to let go
            assert await held(aws.url, iterator) == before


async def test_when_it_is_killed_itself_only_objects_and_the_last_clean_end_remain(tmp_path: Path) -> None:
    with EmbeddedAws.start(tmp_path) as aws:
        settings = Settings.embedded(aws.url)
        await provision.ensure(settings)
    with EmbeddedAws.start(tmp_path) as aws:
        await fill(aws.url)
        aws._process.kill()
        assert not aws.stop()
    with EmbeddedAws.start(tmp_path) as aws:
        async with connect(Settings.embedded(aws.url)) as ports:
            assert await ports.objects.get("acme/a b.parquet") == b"PAR1\x00"
            assert await ports.rows.get(settings.names.leases, KEY) is None
            assert await provision.missing(Settings.embedded(aws.url)) == []


async def test_state_that_could_not_be_saved_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    aws = EmbeddedAws.start(tmp_path)
    await fill(aws.url)
    assert not aws.stop()


def test_two_never_share_a_directory(tmp_path: Path) -> None:
    with EmbeddedAws.start(tmp_path), pytest.raises(UsageError, match=str(os.getpid())) as caught:
        EmbeddedAws.start(tmp_path)
    assert caught.value.code == "already_running"
    with EmbeddedAws.start(tmp_path) as again:
        assert again.running


def test_a_port_that_is_taken_is_refused_at_once(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(UsageError, match="--port") as caught:
            EmbeddedAws.start(tmp_path, port=listener.getsockname()[1])
    assert caught.value.code == "port_taken"


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's list of sockets")
def test_it_answers_on_the_port_asked_for_and_on_loopback_only(tmp_path: Path) -> None:
    port = free_port()
    with EmbeddedAws.start(tmp_path, port=port) as aws:
        assert aws.url == f"http://127.0.0.1:{port}"
        inodes = {os.readlink(path) for path in Path(f"/proc/{aws._process.pid}/fd").iterdir()}
        table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = [fields[1] for fields in table if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes]
        assert listening == [f"0100007F:{port:04X}"]
        six = [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
        assert not [fields for fields in six if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads Linux's list of processes")
def test_it_sees_nothing_of_the_users_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hush")
    monkeypatch.setenv("CONNECTWISE_PRIVATE_KEY", "hush")
    with EmbeddedAws.start(tmp_path) as aws:
        environment = Path(f"/proc/{aws._process.pid}/environ").read_bytes()
    assert b"hush" not in environment
    assert b"AWS_ACCESS" not in environment


def test_a_temporary_directory_is_gone_in_the_end_and_stopping_twice_is_harmless() -> None:
    aws = EmbeddedAws.start()
    assert aws.directory.exists()
    assert aws.stop()
    assert not aws.directory.exists()
    assert aws.stop()
