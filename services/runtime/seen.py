"""What a look at an environment finds: the answers of `inspection.py`, which `cli/diagnosis.py` judges. Pure.

Every question has three answers: what was found, None where it is not there, and `Unseen` where nobody could tell (not
allowed, not offered by an emulator, out of reach).
"""

from typing import TypeAlias, TypeVar

import msgspec

from services.contracts.times import UtcTime

T = TypeVar("T")


class Unseen(msgspec.Struct, frozen=True):
    """Nobody could tell."""

    why: str


Seen: TypeAlias = T | Unseen | None


class Identity(msgspec.Struct, frozen=True):
    """Who asks."""

    account: str
    arn: str

    @property
    def partition(self) -> str:
        """`aws`, `aws-cn` or `aws-us-gov`."""
        return self.arn.split(":")[1]


class StreamSeen(msgspec.Struct, frozen=True):
    status: str
    retention_hours: int
    encryption: str  # KMS or NONE


class TableSeen(msgspec.Struct, frozen=True):
    """`recoverable`: to any moment of the last weeks; `protected` from being deleted; `indexes`: keys by name."""

    status: str
    keys: tuple[str, ...]
    protected: bool
    recoverable: Seen[bool]
    indexes: dict[str, tuple[str, ...]] = {}


class BucketSeen(msgspec.Struct, frozen=True):
    """`encryption` is `aws:kms`, `AES256` or None; `private`: all four blocks of public access are on."""

    versioned: Seen[bool]
    private: Seen[bool]
    encryption: Seen[str]


class AlarmSeen(msgspec.Struct, frozen=True):
    name: str
    state: str  # OK, ALARM or INSUFFICIENT_DATA
    enabled: bool
    changed_at: UtcTime
    reason: str = ""


class TopicSeen(msgspec.Struct, frozen=True):
    """How many subscriptions are confirmed, and by which protocol those came that are not."""

    confirmed: int
    pending: tuple[str, ...]


class ServiceSeen(msgspec.Struct, frozen=True):
    """An ECS service and the task definition it runs. `variables` holds no secret: tasks read those themselves.
    `stopped`: why the last of its tasks ended, where fewer run than shall."""

    name: str
    status: str
    desired: int
    running: int
    rollout: str  # COMPLETED, IN_PROGRESS or FAILED
    image: str = ""
    command: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    role_arn: str = ""
    stopped: str = ""


class Need(msgspec.Struct, frozen=True):
    """What a role must be allowed: each of these actions on this resource (an ARN)."""

    actions: tuple[str, ...]
    resource: str


class Permission(msgspec.Struct, frozen=True):
    """The simulated answer to one action on one resource. `lacking`: condition keys that only a real call has."""

    action: str
    resource: str
    allowed: bool
    lacking: tuple[str, ...] = ()


class PlatformNames(msgspec.Struct, frozen=True):
    """Names of what Terraform alone creates, and none of our services calls."""

    cluster: str
    workgroup: str
    topic: str
    alarms: str  # what the name of every alarm begins with


class Inspection(msgspec.Struct, frozen=True):
    """Everything of one environment, as one look found it."""

    streams: dict[str, Seen[StreamSeen]]
    tables: dict[str, Seen[TableSeen]]
    bucket: Seen[BucketSeen]
    catalog: Seen[int]  # how many databases of tenants it holds
    workgroup: Seen[str]  # its state
    secrets: Seen[frozenset[str]]
    topic: Seen[TopicSeen]
    alarms: Seen[tuple[AlarmSeen, ...]]
    services: Seen[tuple[ServiceSeen, ...]]
    tags: dict[str, Seen[tuple[str, ...]]]  # of the images that run, by image


def platform_names(environment: str) -> PlatformNames:
    """Source: infra/terraform; a test compares."""
    one = f"avesa-{environment}"
    return PlatformNames(one, one, f"avesa-alerts-{environment}", f"{one}-")
