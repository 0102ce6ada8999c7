"""Each role may do what its service does, and nothing else: Terraform's policies beside the calls of a rehearsal.

What AWS does with a caller's rights to reach what is encrypted follows from the calls (`implied`). What is allowed and
cannot be rehearsed stands in a table, each with its reason, and the table holds nothing that is not needed.

Run it with `make rehearse`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import pytest

from services.runtime.processes import SERVICES
from tests.infra.calls import Call
from tests.infra.conftest import Recorded
from tests.infra.policies import Statement, denied, statements, unused
from tests.infra.rehearsal import OPERATOR, PUSHED, TOKENS
from tests.infra.terraform import Imagined

# Not in `make test` yet: the rehearsal races with what it waits for, and ends with an error now and then.
pytestmark = [pytest.mark.emulator, pytest.mark.soak]

DATA, SECRETS = ("arn:aws:kms:us-east-2:000000000000:key/" + name for name in ("data", "secrets"))
FLEETS: Final = (*SERVICES, TOKENS, PUSHED)
# Where each service is one fleet, and which fleets of the rehearsal did its work.
ALONE: Final = [("extractor", ("extractor", TOKENS)), ("transformer", ("transformer",)), ("compactor", ("compactor",))]


class Kms(NamedTuple):
    """A key that a service of AWS uses in the name of whoever calls it."""

    service: str
    key: str
    actions: tuple[str, ...]


# Developer guides: Kinesis "Permissions to use user-generated KMS keys"; DynamoDB "Encryption at rest: how it works"
# (the table's key is decrypted for whoever reads or writes); S3 "Using server-side encryption with KMS keys"; Secrets
# Manager "Secret encryption and decryption".
IMPLIED: Final[Mapping[str, Kms]] = {
    "kinesis:PutRecords": Kms("kinesis", DATA, ("kms:GenerateDataKey",)),
    "kinesis:GetRecords": Kms("kinesis", DATA, ("kms:Decrypt",)),
    "kinesis:SubscribeToShard": Kms("kinesis", DATA, ("kms:Decrypt",)),
    **{
        f"dynamodb:{operation}": Kms("dynamodb", DATA, ("kms:Decrypt",))
        for operation in ("GetItem", "UpdateItem", "DeleteItem", "Query", "Scan")
    },
    "s3:GetObject": Kms("s3", DATA, ("kms:Decrypt",)),
    "s3:PutObject": Kms("s3", DATA, ("kms:GenerateDataKey",)),
    "secretsmanager:GetSecretValue": Kms("secretsmanager", SECRETS, ("kms:Decrypt",)),
    "secretsmanager:PutSecretValue": Kms("secretsmanager", SECRETS, ("kms:Decrypt", "kms:GenerateDataKey")),
    "secretsmanager:CreateSecret": Kms("secretsmanager", SECRETS, ("kms:Decrypt", "kms:GenerateDataKey")),
}


class Rare(NamedTuple):
    """What is allowed and not rehearsed: patterns of the statement's sid and of the action or resource."""

    sid: str
    what: str
    why: str


RARE: Final[tuple[Rare, ...]] = (
    Rare("AbortUploadsOfTables", ".*", "Arrow aborts an upload in parts when a write fails half way"),
    Rare("FindConnectedServices", "dynamodb:Query", "the services of one tenant are asked for where it is a partner"),
    Rare("StoreRefreshTokens", ".*/salesforce[-/].*", "another vendor, of whom Salesforce's tokens are stored alike"),
    Rare("WriteLettersAndLargeBodies", ".*/dead-letter/merge/.*", "what an older mapping made, after a rebuild"),
)


def implied(calls: Iterable[Call]) -> Iterator[Call]:
    """What the same calls ask of keys."""
    for call in calls:
        if (used := IMPLIED.get(call.action)) is not None:
            via = (("kms:ViaService", (f"{used.service}.us-east-2.amazonaws.com",)),)
            yield from (Call(action, used.key, via) for action in used.actions)


def needed(recorded: Recorded, *names: str) -> set[Call]:
    calls = set().union(*(recorded.calls[name] for name in names))
    return calls | set(implied(calls))


def policy(imagined: Imagined, fleet: str) -> list[Statement]:
    return statements(imagined.outputs["policies"][f"avesa-{fleet}-local"])


def in_words(calls: Iterable[Call]) -> list[str]:
    """Without what differs from run to run."""
    return sorted({f"{call.action} {call.resource} {dict(call.context)}" for call in calls})


def test_every_request_of_the_rehearsal_was_understood(recorded: Recorded) -> None:
    assert recorded.unknown == []
    assert all(recorded.calls[name] for name in (OPERATOR, *FLEETS))


@pytest.mark.parametrize("fleet", FLEETS)
def test_a_fleet_of_its_own_calls_nothing_that_it_may_not(fleet: str, grouped: Imagined, recorded: Recorded) -> None:
    assert in_words(denied(policy(grouped, fleet), needed(recorded, fleet))) == []


@pytest.mark.parametrize(("fleet", "made_by"), ALONE)
def test_one_fleet_for_all_calls_nothing_that_it_may_not(
    fleet: str, made_by: tuple[str, ...], alone: Imagined, recorded: Recorded
) -> None:
    assert in_words(denied(policy(alone, fleet), needed(recorded, *made_by))) == []


@pytest.mark.parametrize(("fleet", "made_by"), ALONE)
def test_a_service_may_do_nothing_that_it_does_not_do(
    fleet: str, made_by: tuple[str, ...], alone: Imagined, recorded: Recorded
) -> None:
    idle = unused(policy(alone, fleet), needed(recorded, *made_by))
    assert [one for one in idle if not any(is_rare(rare, *one) for rare in RARE)] == []


@pytest.mark.parametrize("fleet", [TOKENS, PUSHED])
def test_a_fleet_of_its_own_may_do_nothing_else_than_the_fleet_for_all_but_what_it_does(
    fleet: str, alone: Imagined, grouped: Imagined, recorded: Recorded
) -> None:
    known = {statement.sid for statement in policy(alone, fleet.partition("-")[0])}
    idle = unused(policy(grouped, fleet), needed(recorded, fleet))
    assert [one for one in idle if one[0] not in known] == []


def test_nothing_is_called_rare_that_is_common(alone: Imagined, recorded: Recorded) -> None:
    idle = [one for fleet, made_by in ALONE for one in unused(policy(alone, fleet), needed(recorded, *made_by))]
    assert [rare for rare in RARE if not any(is_rare(rare, *one) for one in idle)] == []


def test_an_extractor_of_some_vendors_reads_the_secrets_of_these_alone(grouped: Imagined, recorded: Recorded) -> None:
    secrets = {
        fleet: {call for call in recorded.calls[fleet] if call.action.startswith("secretsmanager:")}
        for fleet in ("extractor", TOKENS)
    }
    assert denied(policy(grouped, "extractor"), secrets[TOKENS]) == sorted(secrets[TOKENS])
    assert denied(policy(grouped, TOKENS), secrets["extractor"]) == sorted(secrets["extractor"])


@pytest.mark.parametrize("fleet", FLEETS)
def test_a_fleet_may_not_do_what_only_others_do(fleet: str, grouped: Imagined, recorded: Recorded) -> None:
    others = needed(recorded, *(name for name in FLEETS if name != fleet)) - needed(recorded, fleet)
    foreign = denied(policy(grouped, fleet), others)
    assert {call.action.partition(":")[0] for call in foreign} >= {"kinesis", "dynamodb", "s3"}


def test_whoever_connects_services_may_store_what_they_are_asked_for(alone: Imagined, recorded: Recorded) -> None:
    (document,) = (one["policy"] for one in alone.resources("aws_iam_policy").values() if "operator" in one["name"])
    stored = {call for call in needed(recorded, OPERATOR) if call.action.startswith("secretsmanager:")}
    assert in_words(denied(statements(document), stored)) == []


def is_rare(rare: Rare, sid: str, what: str) -> bool:
    return re.fullmatch(rare.sid, sid) is not None and re.fullmatch(rare.what, what) is not None
