"""Python and Terraform make the same environment: what each of them creates on an emulator, and the names they give."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from services.contracts.names import JOBS_BY_STATUS, Names
from services.runtime import provision
from services.runtime.aws import open_clients
from services.runtime.settings import Settings
from services.sandbox.embedded import EmbeddedAws
from tests.infra.calls import Call
from tests.infra.local import Applied
from tests.infra.policies import denied, statements
from tests.infra.terraform import Imagined

TENANT: Final = "acme-msp"


@pytest.fixture
def another_aws() -> Iterator[EmbeddedAws]:
    """With nothing in it."""
    with EmbeddedAws.start() as aws:
        yield aws


async def described(settings: Settings) -> dict[str, Any]:
    """Streams, tables and bucket of an environment, in what the services depend on. Encryption is AWS' alone."""
    names = settings.names
    async with open_clients(settings, "kinesis", "dynamodb", "s3") as clients:
        streams = {
            name: (await clients["kinesis"].call("describe_stream_summary", name, StreamName=name))[
                "StreamDescriptionSummary"
            ]
            for name in (names.raw_stream, names.canonical_stream)
        }
        tables = {
            name: (await clients["dynamodb"].call("describe_table", name, TableName=name))["Table"]
            for name in provision.table_keys(names)
        }
        buckets = (await clients["s3"].call("list_buckets", "buckets"))["Buckets"]
    return {
        "streams": {
            name: (found["RetentionPeriodHours"], found["OpenShardCount"], found["StreamModeDetails"]["StreamMode"])
            for name, found in streams.items()
        },
        "tables": {name: table_of(found) for name, found in tables.items()},
        "bucket": names.bucket in {one["Name"] for one in buckets},
    }


def table_of(found: dict[str, Any]) -> dict[str, Any]:
    indexes = found.get("GlobalSecondaryIndexes") or ()
    return {
        "key": key_of(found),
        "types": {one["AttributeName"]: one["AttributeType"] for one in found["AttributeDefinitions"]},
        "indexes": {one["IndexName"]: (key_of(one), one["Projection"]["ProjectionType"]) for one in indexes},
        "local indexes": found.get("LocalSecondaryIndexes") or [],
        "billing": found["BillingModeSummary"]["BillingMode"],
    }


def key_of(found: dict[str, Any]) -> dict[str, str]:
    return {one["KeyType"]: one["AttributeName"] for one in found["KeySchema"]}


@pytest.mark.emulator
async def test_what_terraform_creates_is_what_python_creates(applied: Applied, another_aws: EmbeddedAws) -> None:
    settings = Settings.embedded(another_aws.url, environment=applied.settings.environment)
    await provision.ensure(settings)
    assert await described(applied.settings) == await described(settings)


@pytest.mark.emulator
async def test_nothing_that_the_services_expect_is_missing_after_an_apply(applied: Applied) -> None:
    assert await provision.missing(applied.settings) == []


@pytest.mark.parametrize("environment", ["prod", "dev", "staging"])
def test_terraform_gives_the_names_that_the_code_gives(environment: str, environments: dict[str, Imagined]) -> None:
    outputs, names = environments[environment].outputs, Names(environment)
    assert outputs["stream_names"] == {"raw": names.raw_stream, "canonical": names.canonical_stream}
    assert outputs["table_names"] == {
        "tenant_services": names.tenant_services,
        "last_updated": names.last_updated,
        "leases": names.leases,
        "backfill_jobs": names.backfill_jobs,
    }
    # Not the output, which is the bucket's id: that is made up here, as everything is that AWS answers.
    buckets = environments[environment].resources("aws_s3_bucket")
    assert [one["bucket"] for address, one in buckets.items() if address.startswith("module.lake.")] == [names.bucket]
    secret = names.secret(TENANT, "connectwise:berlin")
    assert secret.startswith(outputs["secrets_prefix"].rpartition(":secret:")[2])


@pytest.mark.parametrize("environment", ["prod", "dev", "staging"])
def test_tables_have_the_keys_that_the_code_expects(environment: str, environments: dict[str, Imagined]) -> None:
    names, tables = Names(environment), environments[environment].resources("aws_dynamodb_table").values()
    keys = {one["name"]: tuple(filter(None, (one["hash_key"], one["range_key"]))) for one in tables}
    assert keys == provision.table_keys(names)
    indexes = {
        one["name"]: {index["name"]: (index["hash_key"], index["range_key"]) for index in one["global_secondary_index"]}
        for one in tables
        if one["global_secondary_index"]
    }
    assert indexes == provision.table_indexes(names)
    assert JOBS_BY_STATUS in indexes[names.backfill_jobs]
    assert {one["billing_mode"] for one in tables} == {"PAY_PER_REQUEST"}


@pytest.mark.parametrize("environment", ["prod", "dev", "staging"])
def test_streams_keep_records_as_long_as_the_services_believe(
    environment: str, environments: dict[str, Imagined]
) -> None:
    settings = settings_of(environments[environment])
    kept = {one["retention_period"] for one in environments[environment].resources("aws_kinesis_stream").values()}
    assert kept == {settings.retention_s / 3_600}
    assert settings.retention_s == Settings.from_environment({}).retention_s == provision.RETENTION_HOURS * 3_600


@pytest.mark.parametrize("environment", ["prod", "dev", "staging"])
def test_the_output_settings_is_what_the_services_read(environment: str, environments: dict[str, Imagined]) -> None:
    settings, names = settings_of(environments[environment]), Names(environment)
    assert (settings.environment, settings.region) == (environment, "us-east-2")
    for name in ("raw_stream", "canonical_stream", "tenant_services", "last_updated", "leases"):
        assert getattr(settings.names, name) == getattr(names, name)


@pytest.mark.parametrize("environment", ["prod", "dev", "staging"])
def test_a_compactor_may_use_the_databases_of_tenants_and_no_other(
    environment: str, environments: dict[str, Imagined]
) -> None:
    outputs, names = environments[environment].outputs, Names(environment)
    policy = statements(outputs["policies"][f"avesa-compactor-{environment}"])
    account = outputs["secrets_prefix"].split(":")[4]

    def asked(database: str) -> Call:
        return Call("glue:CreateDatabase", f"arn:aws:glue:us-east-2:{account}:database/{database}")

    assert denied(policy, [asked(names.database(TENANT))]) == []
    others = [asked(names.views_database), asked(Names(f"{environment}2").database(TENANT))]
    assert denied(policy, others) == sorted(others)


def settings_of(imagined: Imagined) -> Settings:
    return Settings.from_environment(dict(line.split("=", 1) for line in imagined.outputs["settings"].splitlines()))
