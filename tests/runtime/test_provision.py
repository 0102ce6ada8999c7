import pytest

from services.contracts.errors import FatalError, RetryableError
from services.contracts.names import JOBS_BY_STATUS
from services.runtime import provision
from services.runtime.aws import connect, open_clients
from services.runtime.settings import Settings


@pytest.mark.emulator
async def test_what_is_missing_is_named_until_it_is_there(settings: Settings) -> None:
    env = settings.environment
    assert await provision.missing(settings) == [
        f"stream avesa-raw-{env}", f"stream avesa-canonical-{env}", f"table TenantServices-{env}",
        f"table LastUpdated-{env}", f"table Leases-{env}", f"table BackfillJobs-{env}",
        f"bucket data-storage-msp-{env}",
    ]  # fmt: skip
    await provision.ensure(settings)
    assert await provision.missing(settings) == []


@pytest.mark.emulator
async def test_a_table_that_lacks_its_index_is_told(settings: Settings) -> None:
    await provision.ensure(settings)
    jobs = settings.names.backfill_jobs
    async with open_clients(settings, "dynamodb") as clients:
        drop = [{"Delete": {"IndexName": JOBS_BY_STATUS}}]
        await clients["dynamodb"].call("update_table", jobs, TableName=jobs, GlobalSecondaryIndexUpdates=drop)
    assert await provision.missing(settings) == [f"index tenant-status-index of table {jobs}"]


@pytest.mark.emulator
async def test_what_is_there_stays_as_it_is(settings: Settings) -> None:
    await provision.ensure(settings, shards=3)
    async with connect(settings) as aws:
        before = await aws.streams.describe(settings.names.raw_stream)
        await aws.objects.put("acme/a", b"kept")
        await provision.ensure(settings, shards=1)
        assert await aws.streams.describe(settings.names.raw_stream) == before
        assert await aws.objects.get("acme/a") == b"kept"
    assert len(before.shards) == 3


@pytest.mark.parametrize("url", [None, "https://kinesis.us-east-2.amazonaws.com", "http://10.1.2.3:4566"])
async def test_nothing_is_ever_created_where_it_may_be_real(url: str | None) -> None:
    with pytest.raises(FatalError, match="Terraform"):
        await provision.ensure(Settings.from_environment({}, endpoint_url=url))


async def test_an_emulator_that_is_not_there_is_no_reason_to_wait() -> None:
    with pytest.raises(RetryableError) as caught:
        await provision.ensure(Settings.embedded("http://127.0.0.1:9"))
    assert caught.value.code == "aws_unreachable"
