"""What `avesa doctor` makes of what was found: each finding from a look that holds one fault."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.cli.diagnosis import (
    SERVICES,
    Connection,
    Expected,
    Finding,
    Outputs,
    exit_code,
    judge,
    judge_role,
    needs,
    outputs_of,
    service_of,
)
from services.contracts.names import Names
from services.runtime.seen import (
    AlarmSeen,
    BucketSeen,
    Inspection,
    Permission,
    Seen,
    ServiceSeen,
    StreamSeen,
    TableSeen,
    TopicSeen,
    Unseen,
    platform_names,
)

ROOT = Path(__file__).parents[2]
NAMES = Names("prod")
NOW = "2026-01-31T09:15:00.000000Z"
IMAGE = "1.dkr.ecr.us-east-2.amazonaws.com/avesa@sha256:1"
STREAM = StreamSeen("ACTIVE", 168, "KMS")
INDEXES: dict[str, tuple[str, ...]] = {"by-status": ("tenant_id", "status")}
TABLE = TableSeen("ACTIVE", ("tenant_id", "service"), True, True, INDEXES)
ALARM = AlarmSeen("avesa-prod-lake-behind", "OK", True, NOW)
SERVICE = ServiceSeen(
    "avesa-extractor-prod", "ACTIVE", 2, 2, "COMPLETED", IMAGE, ("extractor",), {"ENVIRONMENT": "prod"}
)
WHOLE = Inspection(
    streams={NAMES.raw_stream: STREAM, NAMES.canonical_stream: STREAM},
    tables={"TenantServices": TABLE},
    bucket=BucketSeen(True, True, "aws:kms"),
    catalog=3,
    workgroup="ENABLED",
    secrets=frozenset({"avesa/prod/acme/zendesk"}),
    topic=TopicSeen(1, ()),
    alarms=(ALARM,),
    services=tuple(
        msgspec.structs.replace(SERVICE, name=f"avesa-{service}-prod", command=(service,)) for service in SERVICES
    ),
    tags={IMAGE: ("0.1.0-36421df0c1d2",)},
)
CONNECTIONS = [Connection("acme", "zendesk", "avesa/prod/acme/zendesk")]
OUTPUTS = Outputs(IMAGE, frozenset({ALARM.name}), frozenset(f"avesa-{service}-prod" for service in SERVICES))
EXPECTED = Expected(
    NAMES, {"TenantServices": TABLE.keys}, {"TenantServices": INDEXES}, 7 * 86_400.0, "0.1.0", outputs=OUTPUTS
)


def found(
    expected: Expected = EXPECTED, connections: Seen[list[Connection]] = CONNECTIONS, **changes: Any
) -> list[Finding]:
    """The findings of a whole environment with these changes, without those that are ok."""
    seen = msgspec.structs.replace(WHOLE, **changes)
    return [finding for finding in judge(seen, expected, connections, NOW) if finding.state != "ok"]


def services(**changes: Any) -> tuple[ServiceSeen, ...]:
    """The services, the first of them changed."""
    assert isinstance(WHOLE.services, tuple)
    first, *rest = WHOLE.services
    return (msgspec.structs.replace(first, **changes), *rest)


def told(findings: Iterable[Finding]) -> list[str]:
    return [f"{one.state} {one.subject}: {one.what}" for one in findings]


# -- codes ------------------------------------------------------------------------------------------------------------
def test_an_environment_that_is_whole_has_no_finding() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("states", "code"),
    [((), 0), (("ok",), 0), (("ok", "not checked"), 3), (("not checked", "missing"), 1), (("wrong", "ok"), 1)],
)
def test_the_exit_code_is_that_of_the_worst_finding(states: tuple[Any, ...], code: int) -> None:
    assert exit_code([Finding(state, "it") for state in states]) == code


def test_every_fault_comes_with_a_remedy_and_stands_on_one_line() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("workgroup", "topic", "alarms", "services", "bucket", "catalog", "secrets")
    )
    findings = found(streams={"raw": None}, tables={"TenantServices": None}, **nothing)
    assert {finding.state for finding in findings} == {"missing"}
    assert all(finding.remedy and "\n" not in finding.line for finding in findings)


def test_on_an_emulator_nobody_is_told_to_deploy() -> None:
    expected = msgspec.structs.replace(EXPECTED, by_terraform=False, emulated=True)
    remedies = {finding.remedy for finding in found(expected, bucket=None, streams={"raw": None})}
    assert remedies == {"", "`avesa run --once --environment prod` makes it here."}


def test_what_nobody_may_look_at_is_said_and_is_no_fault() -> None:
    closed = Unseen("describe_alarms on alarms: AWS answers AccessDenied")
    findings = found(alarms=closed, secrets=closed, bucket=closed, streams={NAMES.raw_stream: closed})
    assert {finding.state for finding in findings} == {"not checked"}
    assert len(findings) == 4
    assert exit_code(findings) == 3


def test_a_look_asks_for_nothing_that_changes_anything() -> None:
    source = (ROOT / "services/runtime/inspection.py").read_text()
    asked = set(re.findall(r'(?:call\(|_pages\(client,)\s*"(\w+)"', source))
    assert len(asked) > 15
    assert {operation.partition("_")[0] for operation in asked} == {"describe", "get", "head", "list", "simulate"}


# -- one fault each ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"streams": {"raw": StreamSeen("ACTIVE", 24, "KMS")}}, "wrong stream raw: it keeps 24 h, and"),
        ({"streams": {"raw": StreamSeen("DELETING", 168, "KMS")}}, "wrong stream raw: it is DELETING"),
        (
            {"tables": {"TenantServices": TableSeen("ACTIVE", ("id",), True, True, INDEXES)}},
            "its key is (id), not (tenant_id, ",
        ),
        (
            {"tables": {"TenantServices": TableSeen("ACTIVE", TABLE.keys, False, True, INDEXES)}},
            "wrong table TenantServices: deletion protection is off",
        ),
        (
            {"tables": {"TenantServices": TableSeen("ACTIVE", TABLE.keys, True, True)}},
            "its index by-status is not on (tenant_id, status)",
        ),
        ({"bucket": BucketSeen(True, None, "aws:kms")}, "public access is not blocked"),
        ({"bucket": BucketSeen(True, True, "AES256")}, "it is not encrypted with a key of ours"),
        ({"bucket": BucketSeen(Unseen("no"), True, "aws:kms")}, "not checked bucket data-storage-msp-prod: no"),
        ({"secrets": frozenset()}, "missing secret avesa/prod/acme/zendesk: the credentials of zendesk of tenant acme"),
        ({"workgroup": "DISABLED"}, "wrong Athena workgroup avesa-prod: it is DISABLED"),
        ({"topic": TopicSeen(0, ())}, "an alarm would reach nobody"),
        ({"topic": TopicSeen(1, ("email", "https"))}, "not confirmed: email, https"),
        ({"alarms": ()}, "missing alarm avesa-prod-lake-behind: "),
        ({"alarms": (AlarmSeen(ALARM.name, "OK", False, NOW),)}, "its actions are off"),
        ({"alarms": (AlarmSeen(ALARM.name, "ALARM", True, NOW, "1900 > 1800"),)}, "it rings: 1900 > 1800"),
        ({"services": services(running=0)}, "wrong service avesa-extractor-prod: 0 of 2 tasks run"),
        (
            {"services": services(running=1, stopped="CannotPullContainerError")},
            "1 of 2 tasks run (the last task ended: CannotPullContainerError)",
        ),
        ({"services": services(desired=0, running=0)}, "wrong service avesa-extractor-prod: no task is wanted"),
        ({"services": services(rollout="FAILED")}, "its deployment was rolled back"),
        ({"services": services(image="other@sha256:2")}, "wrong image of avesa-extractor-prod: it runs other@sha256:2"),
        (
            {"services": services(variables={"ENVIRONMENT": "dev"})},
            "wrong settings of avesa-extractor-prod: ENVIRONMENT",
        ),
        (
            {"services": services(variables={"ENVIRONMENT": "prod", "AVESA_RETENTION_S": "1209600"})},
            "AVESA_RETENTION_S is 1.2096e+06, and avesa-raw-prod keeps 168 h",
        ),
        ({"services": services()[1:]}, "missing service avesa-extractor-prod: "),
    ],
)
def test_a_fault_is_told_and_with_it_nothing_else(change: dict[str, Any], finding: str) -> None:
    findings = told(found(**change))
    assert any(finding in one for one in findings), findings
    assert len({one.split(":")[0] for one in findings}) == 1


def test_elsewhere_than_in_production_tables_may_be_deleted() -> None:
    expected = msgspec.structs.replace(EXPECTED, names=Names("dev"))
    tables = {"TenantServices": TableSeen("ACTIVE", TABLE.keys, False, True, INDEXES)}
    assert not any("protection" in one for one in told(found(expected, tables=tables)))


# -- alarms -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("since", "state"), [("2026-01-31T09:05:00.000000Z", "not checked"), ("2026-01-31T08:55:00.000000Z", "wrong")]
)
def test_an_alarm_without_data_is_given_time_and_then_is_wrong(since: str, state: str) -> None:
    (finding,) = found(alarms=(AlarmSeen(ALARM.name, "INSUFFICIENT_DATA", True, since),))
    assert finding.state == state


def test_new_alarms_are_told_together() -> None:
    new = [AlarmSeen(f"avesa-prod-{number}", "INSUFFICIENT_DATA", True, NOW) for number in range(3)]
    assert told(found(alarms=(ALARM, *new))) == ["not checked alarms: 3 of 4 are new and have seen no data yet"]


def test_on_an_emulator_nobody_needs_to_be_told_of_alarms() -> None:
    (finding,) = found(msgspec.structs.replace(EXPECTED, emulated=True), topic=TopicSeen(0, ()))
    assert finding.state == "not checked"


def test_alarms_that_move_the_number_of_tasks_may_ring() -> None:
    scaling = AlarmSeen("avesa-prod-compactor-scale-in", "ALARM", True, NOW)
    assert found(alarms=(ALARM, scaling)) == []


def test_where_nobody_says_what_terraform_made_it_is_not_taken_for_checked() -> None:
    expected = msgspec.structs.replace(EXPECTED, outputs=None)
    assert told(found(expected)) == ["not checked alarms: whether all are there"]
    assert told(found(expected, services=services()[1:])) == [
        "not checked alarms: whether all are there", "missing service avesa-extractor-prod: ",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tags", "finding"),
    [
        (("0.1.0",), None),
        (("0.1.0-36421df0c1d2", "kept"), None),
        (("0.2.0-36421df0c1d2",), "it is 0.2.0-36421df0c1d2, and this is version 0.1.0"),
        ((), "it is without a tag, and this is version 0.1.0"),
        (None, "is not in the registry"),
        (Unseen("AccessDenied"), "AccessDenied"),
    ],
)
def test_without_terraforms_word_the_tag_has_to_be_of_this_version(tags: Any, finding: str | None) -> None:
    expected = msgspec.structs.replace(EXPECTED, outputs=Outputs("", OUTPUTS.alarm_names, OUTPUTS.service_names))
    findings = told(found(expected, tags={IMAGE: tags}))
    assert len(findings) == (3 if finding else 0)
    assert all(finding in one for one in findings if finding)


def test_terraforms_outputs_are_read_whether_a_list_or_a_map() -> None:
    said = {"alarm_names": {"value": ["a"]}, "service_names": {"value": {"one": "b"}}, "image": {"value": "c"}}
    assert outputs_of(said) == Outputs("c", frozenset("a"), frozenset("b"))
    assert outputs_of({"other": {"value": 1}}) == Outputs()


# -- roles ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ((Permission("kinesis:PutRecords", "arn", True),), "ok"),
        ((Permission("kinesis:PutRecords", "arn", False),), "wrong"),
        ((Permission("dynamodb:GetItem", "arn", False, ("dynamodb:LeadingKeys",)),), "not checked"),
        (Unseen("AccessDenied"), "not checked"),
        (None, "missing"),
    ],
)
def test_a_role_is_judged_by_what_its_policies_say(answer: Seen[tuple[Permission, ...]], state: str) -> None:
    assert judge_role(SERVICE, answer).state == state


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_needs_is_what_terraform_grants_it(service: str) -> None:
    granted = (ROOT / "infra/terraform/platform/permissions.tf").read_text()
    where = {"partition": "aws", "region": "us-east-2", "account": "1"}
    for need in needs(service, NAMES, where):
        assert re.fullmatch(r"arn:aws:(kinesis:us-east-2:1:stream|dynamodb:us-east-2:1:table)/[\w-]+", need.resource)
        assert all(f'"{action}"' in granted for action in need.actions)


def test_a_service_is_known_by_its_command_and_else_by_its_name() -> None:
    assert service_of(msgspec.structs.replace(SERVICE, command=("compactor",))) == "compactor"
    assert (
        service_of(msgspec.structs.replace(SERVICE, name="avesa-transformer-tickets-prod", command=())) == "transformer"
    )
    assert service_of(msgspec.structs.replace(SERVICE, name="another", command=())) == ""


def test_the_platforms_names_are_those_that_terraform_gives() -> None:
    names = platform_names("prod")
    text = "".join(path.read_text() for path in (ROOT / "infra/terraform").rglob("*.tf"))
    assert names.topic == "avesa-alerts-prod"
    assert '"avesa-alerts-${var.environment}"' in text
    assert (names.cluster, names.workgroup) == ("avesa-prod", "avesa-prod")
    assert re.search(r'resource "aws_athena_workgroup" .*?name += "avesa-\$\{var.environment\}"', text, re.DOTALL)
    assert re.search(r'alarm_name += "avesa-\$\{var.environment\}-', text)
