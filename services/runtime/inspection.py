"""What of an environment is there in AWS, as far as we may look: reads only. `seen.py` says what the answers are."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from typing import Any, Final, TypeVar

from services.contracts.errors import AvesaError, FatalError, NotFoundError
from services.contracts.names import Names
from services.contracts.times import utc_text
from services.runtime.aws import open_clients
from services.runtime.aws_client import Client
from services.runtime.provision import KEY_TYPES, table_keys
from services.runtime.seen import (
    AlarmSeen,
    BucketSeen,
    Identity,
    Inspection,
    Need,
    Permission,
    Seen,
    ServiceSeen,
    StreamSeen,
    TableSeen,
    TopicSeen,
    Unseen,
    platform_names,
)
from services.runtime.settings import Settings

T = TypeVar("T")

CLIENTS: Final = (
    "athena", "cloudwatch", "dynamodb", "ecr", "ecs", "glue", "kinesis", "s3", "secretsmanager", "sns",
)  # fmt: skip
PAGES_MAX: Final = 200  # of any list: 20,000 secrets
SERVICES_DESCRIBED_MAX: Final = 10  # in one request: API_DescribeServices (Amazon ECS)
TASKS_DESCRIBED_MAX: Final = 100  # in one request: API_DescribeTasks (Amazon ECS)


async def identify(settings: Settings) -> Identity:
    """Who we are to AWS. Errors: FatalError `bad_credentials`, RetryableError where nobody answers."""
    async with open_clients(settings, "sts") as clients:
        answer = await clients["sts"].call("get_caller_identity", "this account")
    return Identity(answer["Account"], answer["Arn"])


async def inspect(settings: Settings, identity: Identity) -> Inspection:
    """One look at everything that has a name. What could not be seen is in it, too: no error but of the set-up."""
    names, platform = settings.names, platform_names(settings.environment)
    topic = f"arn:{identity.partition}:sns:{settings.region}:{identity.account}:{platform.topic}"
    async with open_clients(settings, *CLIENTS) as clients:
        (streams, tables, bucket, catalog), (workgroup, secrets, subscribed, alarms, services) = await asyncio.gather(
            asyncio.gather(
                _all({name: _stream(clients["kinesis"], name) for name in (names.raw_stream, names.canonical_stream)}),
                _all({name: _table(clients["dynamodb"], name) for name in table_keys(names)}),
                seen(_bucket(clients["s3"], names.bucket)),
                seen(_catalog(clients["glue"], names)),
            ),
            asyncio.gather(
                seen(_workgroup(clients["athena"], platform.workgroup)),
                seen(_secrets(clients["secretsmanager"], names)),
                seen(_topic(clients["sns"], topic)),
                seen(_alarms(clients["cloudwatch"], platform.alarms)),
                seen(_services(clients["ecs"], platform.cluster)),
            ),
        )
        images = {one.image for one in services} if isinstance(services, tuple) else set()
        tags = await _all({image: _tags(clients["ecr"], image) for image in sorted(images) if image})
    return Inspection(streams, tables, bucket, catalog, workgroup, secrets, subscribed, alarms, services, tags)


async def simulate(settings: Settings, role_arn: str, needs: Iterable[Need]) -> Seen[tuple[Permission, ...]]:
    """What a role's policies say to these needs, asked of IAM's simulator, which calls nothing.

    Source: API_SimulatePrincipalPolicy (AWS IAM): the policies of the role and its boundary; not those of keys and
            buckets.
    """
    if settings.emulator:  # ministack 1.5.33 finds no policy of a role that has a path
        role_arn = f"{role_arn.partition(':role/')[0]}:role/{role_arn.rpartition('/')[2]}"
    async with open_clients(settings, "iam") as clients:
        answers = await asyncio.gather(*(seen(_simulated(clients["iam"], role_arn, need)) for need in needs))
    unanswered = next((one for one in answers if one is None or isinstance(one, Unseen)), ())
    if unanswered != ():
        return unanswered
    return tuple(permission for answer in answers if isinstance(answer, tuple) for permission in answer)


async def seen(question: Awaitable[T]) -> Seen[T]:
    """The answer; None where the thing is not there; `Unseen` where nobody could tell."""
    try:
        return await question
    except NotFoundError:
        return None
    except AvesaError as err:
        return Unseen(err.what)


async def _all(questions: Mapping[str, Awaitable[T]]) -> dict[str, Seen[T]]:
    answers = await asyncio.gather(*map(seen, questions.values()))
    return dict(zip(questions, answers, strict=True))


async def _pages(
    client: Client, operation: str, subject: str, next_page: str = "NextToken", **arguments: Any
) -> AsyncIterator[Mapping[str, Any]]:
    """The pages of a list, at most `PAGES_MAX`; `next_page` is the field that a service has for the place to go on."""
    for _ in range(PAGES_MAX):
        page = await client.call(operation, subject, **arguments)
        yield page
        if not page.get(next_page):
            return
        arguments[next_page] = page[next_page]


# -- what the services use --------------------------------------------------------------------------------------------
async def _stream(client: Client, name: str) -> StreamSeen:
    answer = await client.call("describe_stream_summary", f"stream {name}", StreamName=name)
    summary = answer["StreamDescriptionSummary"]
    return StreamSeen(summary["StreamStatus"], summary["RetentionPeriodHours"], summary.get("EncryptionType", "NONE"))


async def _table(client: Client, name: str) -> TableSeen:
    subject = f"table {name}"
    table = (await client.call("describe_table", subject, TableName=name))["Table"]
    return TableSeen(
        table["TableStatus"],
        _keys(table["KeySchema"]),
        bool(table.get("DeletionProtectionEnabled")),
        await seen(_recoverable(client, name)),
        {index["IndexName"]: _keys(index["KeySchema"]) for index in table.get("GlobalSecondaryIndexes") or ()},
    )


def _keys(schema: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    kinds = {key["KeyType"]: key["AttributeName"] for key in schema}
    return tuple(kinds[kind] for kind in KEY_TYPES if kind in kinds)


async def _recoverable(client: Client, name: str) -> bool:
    answer = await client.call("describe_continuous_backups", f"table {name}", TableName=name)
    backups = answer["ContinuousBackupsDescription"]
    status = backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus")
    return bool(status == "ENABLED")


async def _bucket(client: Client, name: str) -> BucketSeen:
    await client.call("head_bucket", f"bucket {name}", Bucket=name)
    versioned, private, encryption = await asyncio.gather(
        seen(_versioned(client, name)), seen(_private(client, name)), seen(_encryption(client, name))
    )
    return BucketSeen(versioned, private, encryption)


async def _versioned(client: Client, name: str) -> bool:
    answer = await client.call("get_bucket_versioning", f"bucket {name}", Bucket=name)
    return bool(answer.get("Status") == "Enabled")


async def _private(client: Client, name: str) -> bool:
    answer = await client.call("get_public_access_block", f"bucket {name}", Bucket=name)
    blocks = answer["PublicAccessBlockConfiguration"]
    four = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    return all(blocks.get(block) for block in four)


async def _encryption(client: Client, name: str) -> str:
    answer = await client.call("get_bucket_encryption", f"bucket {name}", Bucket=name)
    (rule, *_) = answer["ServerSideEncryptionConfiguration"]["Rules"]
    return str(rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"])


async def _catalog(client: Client, names: Names) -> int:
    prefix, count = names.database(""), 0
    async for page in _pages(client, "get_databases", "the Glue catalog"):
        count += sum(database["Name"].startswith(prefix) for database in page.get("DatabaseList", ()))
    return count


async def _workgroup(client: Client, name: str) -> str:
    try:
        answer = await client.call("get_work_group", f"workgroup {name}", WorkGroup=name)
    except FatalError as err:  # Athena has no code of its own for this: InvalidRequestException
        if "not found" in err.what:
            raise NotFoundError(err.what) from err
        raise
    return str(answer["WorkGroup"]["State"])


async def _secrets(client: Client, names: Names) -> frozenset[str]:
    """Names only. Secrets that wait for their deletion are left out: API_ListSecrets, IncludePlannedDeletion."""
    prefix = names.secret("", "").rstrip("/") + "/"
    found: set[str] = set()
    filters = [{"Key": "name", "Values": [prefix]}]
    async for page in _pages(client, "list_secrets", f"secrets {prefix}", Filters=filters, MaxResults=100):
        found.update(secret["Name"] for secret in page.get("SecretList", ()))
    return frozenset(found)


# -- what Terraform alone creates -------------------------------------------------------------------------------------
async def _topic(client: Client, arn: str) -> TopicSeen:
    confirmed, pending = 0, []
    async for page in _pages(client, "list_subscriptions_by_topic", f"topic {arn}", TopicArn=arn):
        for subscription in page.get("Subscriptions", ()):
            # Unconfirmed ones have a word where others have an ARN: API_Subscription (Amazon SNS).
            if subscription["SubscriptionArn"].startswith("arn:"):
                confirmed += 1
            else:
                pending.append(str(subscription["Protocol"]))
    return TopicSeen(confirmed, tuple(pending))


async def _alarms(client: Client, prefix: str) -> tuple[AlarmSeen, ...]:
    kinds = ["MetricAlarm", "CompositeAlarm"]
    found: list[AlarmSeen] = []
    async for page in _pages(client, "describe_alarms", f"alarms {prefix}*", AlarmNamePrefix=prefix, AlarmTypes=kinds):
        for alarm in (*page.get("MetricAlarms", ()), *page.get("CompositeAlarms", ())):
            changed_at = utc_text(alarm["StateUpdatedTimestamp"])
            reason = str(alarm.get("StateReason") or "")
            found.append(
                AlarmSeen(alarm["AlarmName"], alarm["StateValue"], bool(alarm["ActionsEnabled"]), changed_at, reason)
            )
    return tuple(sorted(found, key=lambda alarm: alarm.name))


async def _services(client: Client, cluster: str) -> tuple[ServiceSeen, ...]:
    arns: list[str] = []
    async for page in _pages(client, "list_services", f"cluster {cluster}", "nextToken", cluster=cluster):
        arns += page["serviceArns"]
    found: list[ServiceSeen] = []
    for start in range(0, len(arns), SERVICES_DESCRIBED_MAX):
        some = arns[start : start + SERVICES_DESCRIBED_MAX]
        answer = await client.call("describe_services", f"cluster {cluster}", cluster=cluster, services=some)
        there = [service for service in answer["services"] if service["status"] != "INACTIVE"]
        found += [await _service(client, cluster, service) for service in there]
    return tuple(sorted(found, key=lambda one: one.name))


async def _service(client: Client, cluster: str, service: Mapping[str, Any]) -> ServiceSeen:
    name, revision = service["serviceName"], service["taskDefinition"]
    answer = await client.call("describe_task_definition", f"service {name}", taskDefinition=revision)
    task = answer["taskDefinition"]
    container: Mapping[str, Any] = next(iter(task.get("containerDefinitions", ())), {})
    deployments = service.get("deployments", ())
    primary: Mapping[str, Any] = next((one for one in deployments if one.get("status") == "PRIMARY"), {})
    return ServiceSeen(
        name,
        service["status"],
        service["desiredCount"],
        service["runningCount"],
        str(primary.get("rolloutState", "")),
        str(container.get("image", "")),
        tuple(container.get("command") or ()),
        {one["name"]: one["value"] for one in container.get("environment") or ()},
        str(task.get("taskRoleArn") or ""),
        await stop_reason(client, cluster, name) if service["runningCount"] < service["desiredCount"] else "",
    )


async def stop_reason(client: Client, cluster: str, name: str) -> str:
    """Why the last task of a service ended. ECS forgets it after an hour: API_ListTasks."""
    subject, these = f"service {name}", {"cluster": cluster, "serviceName": name}
    arns = (await client.call("list_tasks", subject, desiredStatus="STOPPED", **these))["taskArns"]
    if not arns:
        return ""
    answer = await client.call("describe_tasks", subject, cluster=cluster, tasks=arns[:TASKS_DESCRIBED_MAX])
    ended = sorted(answer["tasks"], key=lambda task: str(task.get("stoppedAt") or ""))
    last: Mapping[str, Any] = ended[-1] if ended else {}
    reasons = (last.get("stoppedReason"), *(container.get("reason") for container in last.get("containers") or ()))
    return "; ".join(dict.fromkeys(str(reason) for reason in reasons if reason))


async def _tags(client: Client, image: str) -> tuple[str, ...]:
    """The tags of an image in ECR. Errors: FatalError for one that is no ECR image."""
    host, _, rest = image.partition("/")
    if ".dkr.ecr." not in host:
        raise FatalError(f"{image} is not in ECR", code="bad_value")
    repository, at, digest = rest.partition("@")
    repository, _, tag = repository.partition(":")
    wanted = {"imageDigest": digest} if at else {"imageTag": tag or "latest"}
    answer = await client.call(
        "describe_images", f"image {image}", registryId=host.split(".")[0], repositoryName=repository, imageIds=[wanted]
    )
    (detail,) = answer["imageDetails"]
    return tuple(sorted(detail.get("imageTags") or ()))


async def _simulated(client: Client, role_arn: str, need: Need) -> tuple[Permission, ...]:
    answer = await client.call(
        "simulate_principal_policy",
        f"role {role_arn}",
        PolicySourceArn=role_arn,
        ActionNames=list(need.actions),
        ResourceArns=[need.resource],
    )
    return tuple(
        Permission(
            result["EvalActionName"],
            need.resource,
            result["EvalDecision"] == "allowed",
            tuple(result.get("MissingContextValues") or ()),
        )
        for result in answer["EvaluationResults"]
    )
