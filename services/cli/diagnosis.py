"""Whether what was found of an environment is what it has to be: one finding a line, and what to do about it. Pure."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

import msgspec

from services.cli.screen import counted
from services.contracts.names import Names
from services.contracts.times import UtcTime, seconds_between
from services.runtime.seen import (
    AlarmSeen,
    BucketSeen,
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

T = TypeVar("T")
State = Literal["ok", "missing", "wrong", "not checked"]
DONE, FAILED, IN_PART = 0, 1, 3

ALARM_SETTLES_S: Final = 900.0  # a new alarm has no data in its first periods: three of five minutes
SERVICES: Final = ("extractor", "transformer", "compactor")
SCALING: Final = ("-scale-out", "-scale-in")  # alarms that move the number of tasks: ringing is their work
RETENTION_VARIABLE: Final = "AVESA_RETENTION_S"
# What an emulator says as AWS would, and does not do. Source: docs/unproven.md.
EMULATOR_GAPS: Final[Mapping[str, str]] = {
    "encryption and permissions": "an emulator notes keys and policies, and enforces neither",
    "limits of the services": "an emulator throttles nothing",
    "tasks": "an emulator keeps ECS services and starts no container",
}


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. `what` says how it is where it is not as it should be, `remedy` what to do then."""

    state: State
    subject: str
    what: str = ""
    remedy: str = ""

    @property
    def line(self) -> str:
        told = f"{self.subject}: {self.what}" if self.what else self.subject
        return f"{self.state:<12} {told}" + (f". {self.remedy}" if self.remedy else "")


class Connection(msgspec.Struct, frozen=True):
    """A connected service and the name of its secret."""

    tenant_id: str
    service: str
    secret: str


class Outputs(msgspec.Struct, frozen=True):
    """What Terraform says it made, as far as we hold it against what is there; None: it does not say."""

    image: str = ""
    alarm_names: frozenset[str] | None = None
    service_names: frozenset[str] | None = None


class Expected(msgspec.Struct, frozen=True):
    """What has to be there.

    Shape:  `keys` by table, and of its indexes by their names; `by_terraform`: also what an emulator lacks that was set
            up without Terraform; `outputs`: None where nobody gave them.
    """

    names: Names
    keys: Mapping[str, tuple[str, ...]]
    indexes: Mapping[str, Mapping[str, tuple[str, ...]]]
    retention_s: float
    version: str
    by_terraform: bool = True
    emulated: bool = False
    outputs: Outputs | None = None

    @property
    def apply(self) -> str:
        """What brings all of it; on an emulator without Terraform that is any command that writes."""
        if not self.by_terraform:
            return f"`avesa run --once --environment {self.names.environment}` makes it here."
        return f"`make deploy ENV={self.names.environment}` brings it to what Terraform says."


def exit_code(findings: Iterable[Finding]) -> int:
    """0 all ok, 3 something was not checked, 1 something is missing or wrong."""
    states = {finding.state for finding in findings}
    if states & {"missing", "wrong"}:
        return FAILED
    return IN_PART if "not checked" in states else DONE


def outputs_of(printed: Mapping[str, Any]) -> Outputs:
    """The outputs we know of a decoded `terraform output -json`: `{name: {"value": …}}`."""

    def listed(name: str) -> frozenset[str] | None:
        value = printed.get(name, {}).get("value")
        return None if value is None else frozenset(value.values() if isinstance(value, dict) else value)

    return Outputs(str(printed.get("image", {}).get("value") or ""), listed("alarm_names"), listed("service_names"))


def is_by_terraform(found: Inspection) -> bool:
    """Does anything show that Terraform was here? Asked of emulators: of an account it is taken for granted."""
    answers = (found.workgroup, found.topic, found.alarms, found.services)
    return any(answer and not isinstance(answer, Unseen) for answer in answers)


def judge(
    found: Inspection, expected: Expected, connections: Seen[Sequence[Connection]], now: UtcTime
) -> list[Finding]:
    """Every finding but those of the roles, in the order in which one would mend them."""
    findings = [
        *(one for name, stream in found.streams.items() for one in _stream(name, stream, expected)),
        *(one for name, table in found.tables.items() for one in _table(name, table, expected)),
        *_bucket(found.bucket, expected),
        *_if_there("Glue catalog", found.catalog, expected, lambda _: [Finding("ok", "Glue catalog")]),
        *_secrets(found.secrets, connections, expected),
    ]
    if not expected.by_terraform:
        what = "encryption, recovery, alarms, roles and ECS services are not there: the emulator was set up without it"
        return [*findings, Finding("not checked", "what Terraform makes", what)]
    return [
        *findings,
        *_workgroup(found.workgroup, expected),
        *_topic(found.topic, expected),
        *_alarms(found.alarms, expected, now),
        *_services(found, expected),
    ]


def _if_there(
    subject: str, answer: Seen[T], expected: Expected, judged: Callable[[T], Iterable[Finding]]
) -> Iterable[Finding]:
    """What is said of a thing that was found; else that it is missing, or why nobody could tell."""
    if answer is None:
        return [Finding("missing", subject, remedy=expected.apply)]
    if isinstance(answer, Unseen):
        return [Finding("not checked", subject, answer.why)]
    return judged(answer)


def _verdict(subject: str, parts: Iterable[tuple[Seen[bool], str]], expected: Expected) -> Iterator[Finding]:
    """One line for all faults of a thing, one for what of it nobody could tell. A part that is not there is a fault."""
    held = list(parts)
    faults = [fault for is_right, fault in held if not is_right]
    unseen = [is_right.why for is_right, _ in held if isinstance(is_right, Unseen)]
    if faults:
        yield Finding("wrong", subject, ", ".join(faults), expected.apply)
    if unseen:
        yield Finding("not checked", subject, "; ".join(unseen))
    if not faults and not unseen:
        yield Finding("ok", subject)


# -- what the services use --------------------------------------------------------------------------------------------
def _stream(name: str, stream: Seen[StreamSeen], expected: Expected) -> Iterable[Finding]:
    subject = f"stream {name}"

    def judged(held: StreamSeen) -> Iterable[Finding]:
        wanted_h = expected.retention_s / 3_600
        return _verdict(
            subject,
            [
                (held.status in ("ACTIVE", "UPDATING"), f"it is {held.status}"),
                (
                    held.retention_hours >= wanted_h,
                    f"it keeps {held.retention_hours} h, and the settings count on {wanted_h:g} h",
                ),
                (not expected.by_terraform or held.encryption == "KMS", "it is not encrypted"),
            ],
            expected,
        )

    return _if_there(subject, stream, expected, judged)


def _table(name: str, table: Seen[TableSeen], expected: Expected) -> Iterable[Finding]:
    subject = f"table {name}"

    def judged(held: TableSeen) -> Iterable[Finding]:
        keys = expected.keys[name]
        told = f"its key is ({', '.join(held.keys)}), not ({', '.join(keys)})"
        parts: list[tuple[Seen[bool], str]] = [
            (held.status in ("ACTIVE", "UPDATING"), f"it is {held.status}"),
            (held.keys == keys, told),
            *(
                (held.indexes.get(index) == keys, f"its index {index} is not on ({', '.join(keys)})")
                for index, keys in expected.indexes.get(name, {}).items()
            ),
        ]
        if expected.by_terraform:
            parts.append((held.recoverable, "point-in-time recovery is off"))
        if expected.names.environment == "prod":
            parts.append((held.protected, "deletion protection is off"))
        return _verdict(subject, parts, expected)

    return _if_there(subject, table, expected, judged)


def _bucket(bucket: Seen[BucketSeen], expected: Expected) -> Iterable[Finding]:
    subject = f"bucket {expected.names.bucket}"

    def judged(held: BucketSeen) -> Iterable[Finding]:
        if not expected.by_terraform:
            return [Finding("ok", subject)]
        encryption = held.encryption
        encrypted: Seen[bool] = encryption if isinstance(encryption, Unseen) else encryption == "aws:kms"
        return _verdict(
            subject,
            [
                (held.versioned, "versioning is off"),
                (held.private, "public access is not blocked"),
                (encrypted, "it is not encrypted with a key of ours"),
            ],
            expected,
        )

    return _if_there(subject, bucket, expected, judged)


def _secrets(
    secrets: Seen[frozenset[str]], connections: Seen[Sequence[Connection]], expected: Expected
) -> Iterable[Finding]:
    """Each connected service has its secret; a table that is not there is told where tables are."""

    def of_connections(rows: Sequence[Connection]) -> Iterable[Finding]:
        def judged(names: frozenset[str]) -> Iterable[Finding]:
            lost = [row for row in rows if row.secret not in names]
            if not lost:
                return [Finding("ok", "secrets", f"{counted(len(rows), 'connected service')}, each with its own")]
            return [_lost(row, expected) for row in lost]

        return _if_there("secrets", secrets, expected, judged)

    if connections is None:
        return [Finding("not checked", "secrets", f"there is no table {expected.names.tenant_services}")]
    return _if_there("secrets", connections, expected, of_connections)


def _lost(row: Connection, expected: Expected) -> Finding:
    options = f"--tenant-id {row.tenant_id} --service {row.service} --environment {expected.names.environment}"
    what = f"the credentials of {row.service} of tenant {row.tenant_id}"
    return Finding("missing", f"secret {row.secret}", what, f"Store them again: `avesa setup-service {options}`.")


# -- what Terraform alone creates -------------------------------------------------------------------------------------
def _workgroup(workgroup: Seen[str], expected: Expected) -> Iterable[Finding]:
    subject = f"Athena workgroup {platform_names(expected.names.environment).workgroup}"

    def judged(state: str) -> Iterable[Finding]:
        return _verdict(subject, [(state == "ENABLED", f"it is {state}")], expected)

    return _if_there(subject, workgroup, expected, judged)


def _topic(topic: Seen[TopicSeen], expected: Expected) -> Iterable[Finding]:
    subject = f"topic {platform_names(expected.names.environment).topic}"

    def judged(held: TopicSeen) -> Iterable[Finding]:
        if held.pending:
            what = f"not confirmed: {', '.join(sorted(held.pending))}"
            yield Finding("wrong", f"{subject}, subscriptions", what, "Follow the link in the mail that AWS sent.")
        elif not held.confirmed:
            remedy = "Name somebody in alert_emails or webhook_url of the environment's tfvars."
            state: State = "not checked" if expected.emulated else "wrong"
            yield Finding(state, f"{subject}, subscriptions", "an alarm would reach nobody", remedy)
        else:
            yield Finding("ok", subject, counted(held.confirmed, "confirmed subscription"))

    return _if_there(subject, topic, expected, judged)


def _alarms(alarms: Seen[tuple[AlarmSeen, ...]], expected: Expected, now: UtcTime) -> Iterable[Finding]:
    subject = "alarms"

    def judged(every: tuple[AlarmSeen, ...]) -> Iterable[Finding]:
        held = [alarm for alarm in every if not alarm.name.endswith(SCALING)]
        wanted = expected.outputs.alarm_names if expected.outputs else None
        missing = sorted((wanted or frozenset()) - {alarm.name for alarm in held})
        yield from (Finding("missing", f"alarm {name}", remedy=expected.apply) for name in missing)
        told = [finding for alarm in held for finding in _alarm(alarm, expected, now)]
        yield from told
        new = sum(_is_new(alarm, now) for alarm in held)
        if new:
            what = f"{new} of {len(held)} are new and have seen no data yet"
            yield Finding("not checked", subject, what, "Look again in a quarter of an hour.")
        elif not held and not missing:
            yield Finding("missing", subject, "not one is there", expected.apply)
        elif not missing and not told:
            yield Finding("ok", subject, f"{len(held)} watch")
        if wanted is None and held:
            what = "whether all are there"
            yield Finding("not checked", subject, what, "Give what `terraform output -json` says: --terraform FILE.")

    return _if_there(subject, alarms, expected, judged)


def _alarm(alarm: AlarmSeen, expected: Expected, now: UtcTime) -> Iterator[Finding]:
    subject = f"alarm {alarm.name}"
    if not alarm.enabled:
        yield Finding("wrong", subject, "its actions are off: it rings and nobody hears it", expected.apply)
    if alarm.state == "ALARM":
        yield Finding("wrong", subject, "it rings" + (f": {alarm.reason}" if alarm.reason else ""), "docs/runbook.md")
    elif alarm.state == "INSUFFICIENT_DATA" and not _is_new(alarm, now):
        yield Finding("wrong", subject, "it sees no data", "Do the services run, and write their metrics?")


def _is_new(alarm: AlarmSeen, now: UtcTime) -> bool:
    """Without data, and for so short a time that there can be none."""
    return alarm.state == "INSUFFICIENT_DATA" and seconds_between(alarm.changed_at, now) < ALARM_SETTLES_S


def _services(found: Inspection, expected: Expected) -> Iterable[Finding]:
    cluster = platform_names(expected.names.environment).cluster

    def judged(held: tuple[ServiceSeen, ...]) -> Iterable[Finding]:
        names = {one.name for one in held}
        outputs = expected.outputs
        wanted = outputs.service_names if outputs and outputs.service_names is not None else None
        missing = sorted(wanted - names) if wanted is not None else _lacking(names, expected)
        yield from (Finding("missing", f"service {name}", remedy=expected.apply) for name in missing)
        for one in held:
            yield from _service(one, expected)
            yield from _image(one, found.tags.get(one.image), expected)
            yield from _settings(one, found.streams, expected)

    return _if_there(f"cluster {cluster}", found.services, expected, judged)


def _lacking(names: Collection[str], expected: Expected) -> list[str]:
    """The services of which not even a group is there."""
    env = expected.names.environment
    wanted = {f"avesa-{service}-{env}": f"avesa-{service}-" for service in SERVICES}
    return [name for name, begin in wanted.items() if not any(one.startswith(begin) for one in names)]


def _service(one: ServiceSeen, expected: Expected) -> Iterator[Finding]:
    subject = f"service {one.name}"
    why = f" (the last task ended: {one.stopped})" if one.stopped else ""
    if one.rollout == "FAILED":
        what = f"its deployment was rolled back, as the new tasks did not stay up{why}"
        yield Finding("wrong", subject, what, f"Read its log /avesa/{expected.names.environment}/…; docs/runbook.md.")
    elif one.running != one.desired:
        what = f"{one.running} of {one.desired} tasks run{why}"
        yield Finding("wrong", subject, what, "It may still be starting: look again. Else docs/runbook.md.")
    elif one.desired == 0:
        yield Finding("wrong", subject, "no task is wanted", expected.apply)
    else:
        yield Finding("ok", subject, f"{one.running} of {one.desired} tasks run")


def _image(one: ServiceSeen, tags: Seen[tuple[str, ...]], expected: Expected) -> Iterator[Finding]:
    """The image that Terraform names; else one whose tag begins with the version we are: `0.1.0-36421df0c1d2`."""
    subject = f"image of {one.name}"
    wanted = expected.outputs.image if expected.outputs else ""
    if wanted:
        if one.image == wanted:
            yield Finding("ok", subject)
        else:
            yield Finding("wrong", subject, f"it runs {one.image}, Terraform says {wanted}", expected.apply)
    elif tags is None:
        yield Finding("missing", subject, f"{one.image} is not in the registry", expected.apply)
    elif isinstance(tags, Unseen):
        yield Finding("not checked", subject, tags.why)
    elif any(tag == expected.version or tag.startswith(f"{expected.version}-") for tag in tags):
        yield Finding("ok", subject, ", ".join(tags))
    else:
        what = f"it is {', '.join(tags) or 'without a tag'}, and this is version {expected.version}"
        yield Finding("wrong", subject, what, expected.apply)


def _settings(one: ServiceSeen, streams: Mapping[str, Seen[StreamSeen]], expected: Expected) -> Iterator[Finding]:
    """Terraform tells a task what it made: the environment, and how long the streams keep what they hold."""
    subject = f"settings of {one.name}"
    told = one.variables.get("ENVIRONMENT")
    if told != expected.names.environment:
        yield Finding("wrong", subject, f"ENVIRONMENT is {told!r}", expected.apply)
    if RETENTION_VARIABLE not in one.variables:  # as ours, which the streams are held against
        return
    counted_s = float(one.variables[RETENTION_VARIABLE])
    for name, stream in streams.items():
        if isinstance(stream, StreamSeen) and stream.retention_hours * 3_600 < counted_s:
            what = f"{RETENTION_VARIABLE} is {counted_s:g}, and {name} keeps {stream.retention_hours} h"
            yield Finding("wrong", subject, what, expected.apply)


# -- permissions ------------------------------------------------------------------------------------------------------
def service_of(one: ServiceSeen) -> str:
    """extractor, transformer or compactor; "" for another."""
    words = (*one.command[:1], *one.name.removeprefix("avesa-").split("-")[:1])
    return next((word for word in words if word in SERVICES), "")


def needs(service: str, names: Names, where: Mapping[str, str]) -> tuple[Need, ...]:
    """What a service calls all the time, as IAM names it: a sample, which shows a role that was never applied or was
    narrowed by hand. That policies allow each call and no other is shown by tests/infra.

    Shape:  `where`: `partition`, `region`, `account`. Left out is what policies allow under conditions that only a real
            call meets (rows of DynamoDB by their leading keys).
    """
    partition, place = where["partition"], f"{where['region']}:{where['account']}"
    raw, canonical = (
        f"arn:{partition}:kinesis:{place}:stream/{name}" for name in (names.raw_stream, names.canonical_stream)
    )
    services_table = f"arn:{partition}:dynamodb:{place}:table/{names.tenant_services}"
    find = ("kinesis:DescribeStreamSummary", "kinesis:ListShards")
    return {
        "extractor": (Need((*find, "kinesis:PutRecords"), raw), Need(("dynamodb:Scan",), services_table)),
        "transformer": (Need(find, raw), Need((*find, "kinesis:PutRecords"), canonical)),
        "compactor": (Need((*find, "kinesis:GetRecords"), raw), Need((*find, "kinesis:GetRecords"), canonical)),
    }[service]


def judge_role(one: ServiceSeen, answer: Seen[tuple[Permission, ...]]) -> Finding:
    """Whether the role of a service may do what it does all the time."""
    subject = f"role of {one.name}"
    if answer is None:
        return Finding("missing", subject, one.role_arn)
    if isinstance(answer, Unseen):
        return Finding("not checked", subject, answer.why)
    refused = [permission for permission in answer if not permission.allowed]
    conditional = [permission for permission in refused if permission.lacking]
    if len(refused) > len(conditional):
        told = ", ".join(f"{one.action} on {one.resource.rpartition('/')[2]}" for one in refused if not one.lacking)
        return Finding(
            "wrong", subject, f"it may not {told}", "Apply the platform again, or see who narrowed the role."
        )
    if conditional:
        told = ", ".join(one.action for one in conditional)
        return Finding("not checked", subject, f"{told}: allowed under conditions only")
    return Finding("ok", subject)
