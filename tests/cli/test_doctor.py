"""`avesa doctor` as a person meets it: an environment that has everything, then one without each thing in turn."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from services.cli.diagnosis import EMULATOR_GAPS, SERVICES
from services.contracts.ports import Value
from services.runtime import provision
from services.runtime.aws import connect, open_clients
from services.runtime.aws_client import Client
from services.runtime.inspection import stop_reason
from services.runtime.settings import Settings
from tests.cli.conftest import Avesa, Told, looked

VERSION = "0.1.0"
ACCOUNT = "000000000000"
Clients = dict[str, Client]

_environments = count(1)


def lines(told: Told, state: str) -> list[str]:
    """What is said after this state."""
    return [line[len(state) :].strip() for line in told.out.splitlines() if line.startswith(f"{state:<12}")]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Clients]:
    names = ("kinesis", "dynamodb", "s3", "secretsmanager", "athena", "sns", "cloudwatch", "ecs", "ecr", "iam", "glue")
    async with open_clients(settings, *names) as clients:
        yield clients


@pytest.fixture(scope="module")
def kept(embedded_aws: str) -> Callable[[], Settings]:
    """A new environment that has everything, as Terraform would make it."""

    def make() -> Settings:
        settings = Settings.embedded(embedded_aws, environment=f"doctor{next(_environments)}")
        looked(build(settings))
        return settings

    return make


@pytest.fixture
def whole(kept: Callable[[], Settings], avesa: Avesa, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Such an environment, where `avesa` finds it."""
    settings = kept()
    assert settings.endpoint_url is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL", settings.endpoint_url)
    monkeypatch.setenv("ENVIRONMENT", settings.environment)
    return settings


async def build(settings: Settings) -> None:
    await provision.ensure(settings)
    names, env = settings.names, settings.environment
    async with opened(settings) as clients, connect(settings) as aws:
        for stream in (names.raw_stream, names.canonical_stream):
            await clients["kinesis"].call(
                "start_stream_encryption", stream, StreamName=stream, EncryptionType="KMS", KeyId="alias/aws/kinesis"
            )
        for table in provision.table_keys(names):
            await clients["dynamodb"].call(
                "update_continuous_backups",
                table,
                TableName=table,
                PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True},
            )
        await build_bucket(clients["s3"], names.bucket)
        await clients["athena"].call("create_work_group", "workgroup", Name=f"avesa-{env}")
        topic = await clients["sns"].call("create_topic", "topic", Name=f"avesa-alerts-{env}")
        queue = f"arn:aws:sqs:{settings.region}:{ACCOUNT}:alerts"
        await clients["sns"].call(
            "subscribe", "topic", TopicArn=topic["TopicArn"], Protocol="sqs", Endpoint=queue, ReturnSubscriptionArn=True
        )
        await build_alarm(clients["cloudwatch"], f"avesa-{env}-lake-behind")
        await build_alarm(clients["cloudwatch"], f"avesa-{env}-dead-letters")
        await build_services(clients, settings)
        await aws.secrets.put(names.secret("acme", "connectwise"), {"key": "value"})
        row: dict[str, Value] = {"secret": names.secret("acme", "connectwise"), "enabled": True}
        await aws.rows.write(names.tenant_services, {"tenant_id": "acme", "service": "connectwise"}, row)


async def build_bucket(s3: Client, bucket: str) -> None:
    await s3.call("put_bucket_versioning", bucket, Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    four = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    await s3.call(
        "put_public_access_block", bucket, Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(four, True)
    )
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/avesa"}}
    await s3.call("put_bucket_encryption", bucket, Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})


async def build_alarm(cloudwatch: Client, name: str, state: str = "OK") -> None:
    await cloudwatch.call(
        "put_metric_alarm",
        name,
        AlarmName=name,
        Namespace="AVESA",
        MetricName="LakeBehindSeconds",
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold",
        TreatMissingData="notBreaching",
    )
    await cloudwatch.call("set_alarm_state", name, AlarmName=name, StateValue=state, StateReason="a test says so")


async def build_services(clients: Clients, settings: Settings) -> None:
    env, image = settings.environment, f"{ACCOUNT}.dkr.ecr.{settings.region}.amazonaws.com/avesa-{settings.environment}"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
    await clients["ecr"].call("create_repository", image, repositoryName=f"avesa-{env}")
    await clients["ecr"].call(
        "put_image", image, repositoryName=f"avesa-{env}", imageManifest=manifest, imageTag=f"{VERSION}-36421df0c1d2"
    )
    await clients["ecs"].call("create_cluster", env, clusterName=f"avesa-{env}")
    for service in SERVICES:
        name = f"avesa-{service}-{env}"
        role = await clients["iam"].call(
            "create_role", name, RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17"})
        )
        actions = ["kinesis:*", "dynamodb:Scan"]
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
        await clients["iam"].call(
            "put_role_policy", name, RoleName=name, PolicyName="calls", PolicyDocument=json.dumps(policy)
        )
        await clients["ecs"].call(
            "register_task_definition",
            name,
            family=name,
            taskRoleArn=role["Role"]["Arn"],
            containerDefinitions=[
                {
                    "name": service,
                    "image": f"{image}:{VERSION}-36421df0c1d2",
                    "command": [service],
                    "environment": [{"name": "ENVIRONMENT", "value": env}],
                    "memory": 512,
                }
            ],
        )
        await clients["ecs"].call(
            "create_service", name, cluster=f"avesa-{env}", serviceName=name, taskDefinition=name, desiredCount=1
        )


# -- all is well ------------------------------------------------------------------------------------------------------
@pytest.mark.emulator
def test_an_environment_that_has_everything_has_nothing_missing_and_nothing_wrong(
    avesa: Avesa, whole: Settings, tmp_path: Path
) -> None:
    told = avesa("doctor", "--terraform", str(outputs(tmp_path, whole)))
    assert lines(told, "missing") + lines(told, "wrong") == []
    assert {line.partition(":")[0] for line in lines(told, "not checked")} == set(EMULATOR_GAPS)
    assert len(lines(told, "ok")) == 25
    assert told.code == 3  # what no emulator can show is said, and counts


@pytest.mark.emulator
def test_an_emulator_that_python_set_up_is_not_held_against_what_terraform_makes(avesa: Avesa, aws: Settings) -> None:
    looked(provision.ensure(aws))
    told = avesa("doctor")
    assert (told.code, lines(told, "missing") + lines(told, "wrong")) == (3, [])
    assert lines(told, "not checked")[-1].startswith("what Terraform makes: encryption, recovery, alarms")


@pytest.mark.emulator
def test_a_machine_reads_one_finding_a_line(avesa: Avesa, aws: Settings) -> None:
    looked(provision.ensure(aws))
    found = {record["subject"]: record["state"] for record in avesa("doctor", "--json").records}
    assert found[f"stream {aws.names.raw_stream}"] == "ok"
    assert found["what Terraform makes"] == "not checked"


# -- each thing in turn -----------------------------------------------------------------------------------------------
REMOVED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "stream avesa-raw-{env}": ("kinesis", "delete_stream", {"StreamName": "avesa-raw-{env}"}),
    "table Leases-{env}": ("dynamodb", "delete_table", {"TableName": "Leases-{env}"}),
    "bucket data-storage-msp-{env}": ("s3", "delete_bucket", {"Bucket": "data-storage-msp-{env}"}),
    "secret avesa/{env}/acme/connectwise": (
        "secretsmanager",
        "delete_secret",
        {"SecretId": "avesa/{env}/acme/connectwise", "ForceDeleteWithoutRecovery": True},
    ),
    "Athena workgroup avesa-{env}": ("athena", "delete_work_group", {"WorkGroup": "avesa-{env}"}),
    "topic avesa-alerts-{env}": (
        "sns",
        "delete_topic",
        {"TopicArn": f"arn:aws:sns:us-east-2:{ACCOUNT}:avesa-alerts-{{env}}"},
    ),
    "alarm avesa-{env}-lake-behind": ("cloudwatch", "delete_alarms", {"AlarmNames": ["avesa-{env}-lake-behind"]}),
    "service avesa-extractor-{env}": (
        "ecs",
        "delete_service",
        {"cluster": "avesa-{env}", "service": "avesa-extractor-{env}", "force": True},
    ),
}
SPOILED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "stream avesa-raw-{env}: it is not encrypted": (
        "kinesis",
        "stop_stream_encryption",
        {"StreamName": "avesa-raw-{env}", "EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"},
    ),
    "stream avesa-canonical-{env}: it keeps 24 h, and the settings count on 168 h": (
        "kinesis",
        "decrease_stream_retention_period",
        {"StreamName": "avesa-canonical-{env}", "RetentionPeriodHours": 24},
    ),
    "table LastUpdated-{env}: point-in-time recovery is off": (
        "dynamodb",
        "update_continuous_backups",
        {
            "TableName": "LastUpdated-{env}",
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": False},
        },
    ),
    "bucket data-storage-msp-{env}: versioning is off": (
        "s3",
        "put_bucket_versioning",
        {"Bucket": "data-storage-msp-{env}", "VersioningConfiguration": {"Status": "Suspended"}},
    ),
    "public access is not blocked": (
        "s3",
        "delete_public_access_block",
        {"Bucket": "data-storage-msp-{env}"},
    ),
    "it is not encrypted with a key of ours": (
        "s3",
        "delete_bucket_encryption",
        {"Bucket": "data-storage-msp-{env}"},
    ),
    "alarm avesa-{env}-dead-letters: its actions are off": (
        "cloudwatch",
        "disable_alarm_actions",
        {"AlarmNames": ["avesa-{env}-dead-letters"]},
    ),
    "alarm avesa-{env}-dead-letters: it rings: a test rings it": (
        "cloudwatch",
        "set_alarm_state",
        {"AlarmName": "avesa-{env}-dead-letters", "StateValue": "ALARM", "StateReason": "a test rings it"},
    ),
    "role of avesa-compactor-{env}: it may not kinesis:DescribeStreamSummary on": (
        "iam",
        "delete_role_policy",
        {"RoleName": "avesa-compactor-{env}", "PolicyName": "calls"},
    ),
}


def outputs(folder: Path, settings: Settings) -> Path:
    """What `terraform output -json` would say of a whole environment."""
    env = settings.environment
    file = folder / "outputs.json"
    said = {
        "alarm_names": [f"avesa-{env}-lake-behind", f"avesa-{env}-dead-letters"],
        "service_names": {service: f"avesa-{service}-{env}" for service in SERVICES},
        "image": f"{ACCOUNT}.dkr.ecr.{settings.region}.amazonaws.com/avesa-{env}:{VERSION}-36421df0c1d2",
    }
    file.write_text(json.dumps({name: {"value": value} for name, value in said.items()}))
    return file


def meant(arguments: Any, env: str) -> Any:
    """Arguments in which `{env}` is the environment."""
    if isinstance(arguments, str):
        return arguments.replace("{env}", env)
    if isinstance(arguments, dict):
        return {name: meant(value, env) for name, value in arguments.items()}
    return [meant(value, env) for value in arguments] if isinstance(arguments, list) else arguments


async def call(settings: Settings, service: str, operation: str, arguments: dict[str, Any]) -> None:
    async with opened(settings) as clients:
        await clients[service].call(operation, "a test", **meant(arguments, settings.environment))


@pytest.mark.emulator
def test_each_thing_removed_is_missing_and_nothing_else_is(avesa: Avesa, whole: Settings, tmp_path: Path) -> None:
    for removal in REMOVED.values():
        looked(call(whole, *removal))
    told = avesa("doctor", "--terraform", str(outputs(tmp_path, whole)))
    found = {line.partition(":")[0].partition(". ")[0]: line for line in lines(told, "missing")}
    assert set(found) == {meant(subject, whole.environment) for subject in REMOVED}
    remedies = (f"--environment {whole.environment}", f"ENV={whole.environment}")
    assert all(any(remedy in line for remedy in remedies) for line in found.values())
    assert (told.code, lines(told, "wrong")) == (1, [])


@pytest.mark.emulator
def test_each_thing_spoiled_is_wrong_and_nothing_else_is(avesa: Avesa, whole: Settings, tmp_path: Path) -> None:
    for change in SPOILED.values():
        looked(call(whole, *change))
    told = avesa("doctor", "--terraform", str(outputs(tmp_path, whole)))
    wanted = [meant(finding, whole.environment) for finding in SPOILED]
    assert all(any(finding in line for line in lines(told, "wrong")) for finding in wanted), lines(told, "wrong")
    subjects = {finding.partition(":")[0] for finding in wanted if ":" in finding}
    assert {line.partition(":")[0] for line in lines(told, "wrong")} == subjects
    assert (told.code, lines(told, "missing")) == (1, [])


@pytest.mark.emulator
def test_another_image_than_terraform_says_is_wrong(avesa: Avesa, whole: Settings, tmp_path: Path) -> None:
    file = outputs(tmp_path, whole)
    file.write_text(file.read_text().replace("36421df0c1d2", "ffffffffffff"))
    told = avesa("doctor", "--terraform", str(file))
    assert [line.split(":")[0] for line in lines(told, "wrong")] == [
        f"image of avesa-{service}-{whole.environment}" for service in sorted(SERVICES)
    ]


@pytest.mark.emulator
def test_without_what_terraform_says_the_image_must_be_of_this_version(avesa: Avesa, whole: Settings) -> None:
    told = avesa("doctor")
    assert f"image of avesa-extractor-{whole.environment}: {VERSION}-36421df0c1d2" in lines(told, "ok")
    assert any(line.startswith("alarms: whether all are there") for line in lines(told, "not checked"))


@pytest.mark.emulator
def test_why_the_last_task_of_a_service_ended_is_told(whole: Settings) -> None:
    assert looked(stopped(whole)) == "a test ends it"


async def stopped(settings: Settings) -> str:
    env = settings.environment
    async with opened(settings) as clients:
        ecs, name = clients["ecs"], f"avesa-extractor-{env}"
        tasks = await ecs.call("list_tasks", name, cluster=f"avesa-{env}", serviceName=name)
        for task in tasks["taskArns"]:
            await ecs.call("stop_task", name, cluster=f"avesa-{env}", task=task, reason="a test ends it")
        return await stop_reason(ecs, f"avesa-{env}", name)


# -- nobody lets us in ------------------------------------------------------------------------------------------------
def test_without_any_aws_it_says_how_to_name_one_and_still_looks_here(
    avesa: Avesa, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    told = avesa("doctor")
    assert told.code == 1
    assert lines(told, "missing") == [
        "credentials: no AWS is configured. One of three: run `avesa up` (or `avesa demo`) in this folder for the "
        "embedded AWS; set AWS_ENDPOINT_URL for LocalStack or the like; name a real account with --profile or "
        "AWS_PROFILE."
    ]
    assert len(lines(told, "not checked")) == 7
    assert any(line.startswith("mapping files") for line in lines(told, "ok"))


def test_an_aws_that_does_not_answer_is_named(avesa: Avesa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    told = avesa("doctor", "--wait-s", "0")
    assert told.code == 1
    (line,) = lines(told, "missing")
    assert line.startswith("AWS: http://127.0.0.1:9 did not answer")
    assert all(line.endswith("AWS was not reached") for line in lines(told, "not checked"))


def test_a_file_that_is_not_terraforms_is_refused(avesa: Avesa, tmp_path: Path) -> None:
    (tmp_path / "outputs.json").write_text("[]")
    told = avesa("doctor", "--terraform", "outputs.json")
    assert (told.code, "terraform output -json" in told.err) == (2, True)
