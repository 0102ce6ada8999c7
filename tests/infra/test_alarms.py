"""Each alarm rings for its fault, stops after it, and is written about.

Twice: as AWS documents its evaluation (`cloudwatch.py`), and on the emulator that evaluates alarms. A fault is what our
own code says at it, as the line CloudWatch would make metrics of; or a metric of AWS.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import monotonic, sleep, time
from typing import Any, Final

import msgspec
import pytest

from services.contracts.log import (
    CredentialsRefused,
    EndpointFailed,
    EndpointsLate,
    Event,
    LakeBehind,
    LeaseRestored,
    MemoryLost,
    PartitionParked,
    PoisonIsolated,
    PoisonSuspected,
    PositionExpired,
    PutsRefused,
    RecordsRejected,
    ServiceAlive,
    ShardsBehind,
    SweepSuspicious,
    VendorThrottled,
)
from tests.infra.cloudwatch import Alarm, Point, Query, alarm, points
from tests.infra.terraform import REPOSITORY, Imagined

RUNBOOK: Final = REPOSITORY / "docs" / "runbook.md"
REGION: Final = "us-east-2"
MARGIN_S: Final = 5.0  # a fault so long before it leaves what the emulator looks at: time enough to see the alarm ring
WAIT_S: Final = 20.0
POLL_S: Final = 0.05
AT_ONCE: Final = 12

# What is said in one minute; a float is the value of a metric of AWS's; None: nothing is said.
Said = Event | float | None


class Fault(msgspec.Struct, frozen=True):
    """What goes wrong and what is well, each minute, for an alarm that asks for this. `silent`: the emulator does not
    evaluate it, and why."""

    bad: Callable[[Query], Sequence[Said]]
    good: Callable[[Query], Sequence[Said]]
    silent: str = ""


def counted(event: Event, many: int = 1) -> Fault:
    """Something that should not be happens, so often a minute; and then no more."""
    return Fault(lambda _: [event] * many, lambda _: [])


def of_aws(bad: float, good: float) -> Fault:
    return Fault(lambda _: [bad], lambda _: [good])


def alive(query: Query, tasks: int = 1) -> list[Said]:
    return [ServiceAlive(service=query.dimensions["Service"], group=query.dimensions["Group"])] * tasks


def behind(query: Query, ms: int) -> list[Said]:
    return [ShardsBehind(service=query.dimensions["Service"], group=query.dimensions["Group"], ms=ms)]


def late(query: Query, seconds: float) -> list[Said]:
    tier = query.dimensions["Tier"]
    return [msgspec.convert({"tier": tier, "seconds": seconds}, EndpointsLate)]


OF: Final[Mapping[str, Any]] = {"tenant_id": "acme", "service": "zoo"}
# By the section of the runbook, which all alarms of a kind share.
FAULTS: Final[Mapping[str, Fault]] = {
    "records-rejected": counted(RecordsRejected(stage="transform", tenant_id="acme", group="", code="bad", count=101)),
    "partition-parked": counted(PartitionParked(**OF, group="tickets", reason="letters")),
    "endpoints-failed": counted(EndpointFailed(**OF, endpoint="animals", code="unavailable", what="no answer"), many=3),
    "credentials-refused": counted(CredentialsRefused(**OF)),
    "vendor-throttled": counted(VendorThrottled(**OF, wait_s=2.0), many=201),
    "puts-refused": counted(PutsRefused(stream="s", shard="0", code="throttled", held_bytes=1), many=3),
    "sweep-suspicious": counted(SweepSuspicious(**OF, endpoint="animals", known=900, found=2)),
    "memory-lost": counted(MemoryLost(scope="memory", name="acme/zoo/animals")),
    "position-expired": counted(PositionExpired(group="transformer", stream="s", shard="0")),
    "lease-restored": counted(LeaseRestored(scope="extract", name="acme/zoo")),
    "poison-suspected": counted(PoisonSuspected(scope="transformer/s/1", name="0", deaths=3)),
    "poison-isolated": counted(PoisonIsolated(scope="transformer/s/1", name="0", first="1", count=1)),
    "shards-behind": Fault(lambda query: behind(query, 300_001), lambda query: behind(query, 0)),
    "lake-behind": Fault(lambda _: [LakeBehind(seconds=1_801)], lambda _: [LakeBehind(seconds=0)]),
    "endpoints-late": Fault(lambda query: late(query, 3_601), lambda query: late(query, 0)),
    "iterator-age": of_aws(600_001, 0),
    "write-throttled": of_aws(101, 0),
    "cost-guard": of_aws(50_000_000_001, 1),
    "task-deaths": of_aws(1, 0),
    "missing-heartbeat": Fault(
        lambda _: [], alive, silent="ministack evaluates what arrives and not what does not: silence never breaches"
    ),
    "saturated": Fault(
        lambda query: [*alive(query, tasks=9), *behind(query, 300_001)],
        lambda query: [*alive(query), *behind(query, 0)],
        silent="ministack does not evaluate metric math",
    ),
}  # fmt: skip
COMPOSITE: Final = "unhealthy"
KINDS: Final = sorted(FAULTS)
EVALUATED: Final = [kind for kind in KINDS if not FAULTS[kind].silent]


def alarms(of: Imagined, kind: str | None = None) -> list[Alarm]:
    """Those that are for people."""
    every = of.resources("aws_cloudwatch_metric_alarm").items()
    found = [alarm(values) for address, values in every if ".observability." in address]
    return [one for one in found if kind in (None, one.family)]


def told(one: Alarm, said: Sequence[Said], at: float) -> list[Point]:
    """What is said at a moment, as points."""
    query = next(iter(one.queries.values()))
    found: list[Point] = []
    for thing in said:
        if isinstance(thing, Event):
            found += points(thing, "dev", at)
        elif thing is not None:
            found.append(Point(query.namespace, query.name, query.dimensions, thing, "None", at))
    return found


def minutes(one: Alarm, which: Callable[[Query], Sequence[Said]], until: float) -> list[Point]:
    """The same said each minute of all that an alarm looks at."""
    query = next(iter(one.queries.values()))
    ats = range(int(until) - one.window_s, int(until), 60)
    if query.period_s == 86_400:  # the sum of a day: once is enough
        ats = ats[:1]
    return [point for at in ats for point in told(one, which(query), float(at))]


# -- as AWS documents it ----------------------------------------------------------------------------------------------
def test_every_kind_of_alarm_has_its_fault_here(watched: Imagined) -> None:
    assert {one.family for one in alarms(watched)} == set(FAULTS)


@pytest.mark.parametrize("kind", KINDS)
def test_it_rings_while_its_fault_lasts_and_stops_after_it(watched: Imagined, kind: str) -> None:
    for one in alarms(watched, kind):
        fault, now = FAULTS[kind], 10_000_000.0
        bad = minutes(one, fault.bad, now)
        good = minutes(one, fault.good, now + one.window_s)
        assert one.state(bad, now) == "ALARM", one.name
        assert one.state([*bad, *good], now + one.window_s) == "OK", one.name


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_ring_for_somebody_elses_fault(watched: Imagined, kind: str) -> None:
    for one in alarms(watched, kind):
        now = 10_000_000.0
        others = [other for other in alarms(watched) if other.queries.keys() == one.queries.keys()]
        others = [other for other in others if all(other.queries[name] != one.queries[name] for name in one.queries)]
        theirs = [
            msgspec.structs.replace(point, dimensions={**point.dimensions, "Environment": "other"})
            if "Environment" in point.dimensions
            else msgspec.structs.replace(point, dimensions=dict.fromkeys(point.dimensions, "other"))
            for point in minutes(one, FAULTS[kind].bad, now)
        ]
        for other in others:
            theirs += minutes(other, FAULTS[other.family].bad, now)
        theirs = [point for point in theirs if not any(q.matches(point) for q in one.queries.values())]
        well = minutes(one, FAULTS[kind].good, now)
        assert one.state([*well, *theirs], now) != "ALARM", one.name


# -- as the emulator has it -------------------------------------------------------------------------------------------
class Bench:
    """An account of its own on the emulator for one alarm: to it, all of a metric's dimensions are one."""

    def __init__(self, session: Any, url: str, number: int) -> None:
        """`session` of boto3: not for two threads at once."""

        def client(service: str) -> Any:
            keys = {"aws_access_key_id": f"{100_000_000_000 + number}", "aws_secret_access_key": "test"}
            return session.client(service, endpoint_url=url, region_name=REGION, **keys)

        self.cloudwatch, self._topics, self._queues = client("cloudwatch"), client("sns"), client("sqs")

    def listen(self) -> None:
        """A topic, and a queue that hears what is published to it."""
        self.topic = self._topics.create_topic(Name="avesa-alerts-dev")["TopicArn"]
        self._queue = self._queues.create_queue(QueueName="told")["QueueUrl"]
        asked = self._queues.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])
        self._topics.subscribe(TopicArn=self.topic, Protocol="sqs", Endpoint=asked["Attributes"]["QueueArn"])

    def heard(self) -> list[str]:
        """The states that were told of, in their order."""
        found = self._queues.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10).get("Messages", [])
        texts = [msgspec.json.decode(msgspec.json.decode(one["Body"])["Message"]) for one in found]
        return [text["NewStateValue"] for text in texts]

    def make(self, one: Alarm) -> None:
        """The alarm, as Terraform has it."""
        (query,) = one.queries.values()
        self.cloudwatch.put_metric_alarm(
            AlarmName=one.name,
            AlarmDescription=one.values["alarm_description"],
            Namespace=query.namespace,
            MetricName=query.name,
            Dimensions=dimensions(query.dimensions),
            Statistic=query.statistic,
            Period=query.period_s,
            EvaluationPeriods=one.periods,
            DatapointsToAlarm=one.datapoints,
            Threshold=one.threshold,
            ComparisonOperator=one.comparison,
            TreatMissingData=one.missing,
            AlarmActions=[self.topic] * bool(one.values["alarm_actions"]),
            OKActions=[self.topic] * bool(one.values["ok_actions"]),
        )

    def put(self, said: Sequence[Point]) -> None:
        """All of it; what is alike in all as one."""
        alike: dict[bytes, list[Point]] = {}
        for point in said:
            alike.setdefault(msgspec.json.encode(point), []).append(point)
        for point, *others in alike.values():
            datum = {
                "MetricName": point.name,
                "Dimensions": dimensions(point.dimensions),
                "Timestamp": datetime.fromtimestamp(point.at, UTC),
                "Values": [point.value],
                "Counts": [1 + len(others)],
                "Unit": point.unit,
            }
            self.cloudwatch.put_metric_data(Namespace=point.namespace, MetricData=[datum])

    def state(self, name: str, kind: str = "MetricAlarms") -> str:
        found = self.cloudwatch.describe_alarms(AlarmNames=[name], AlarmTypes=[kind.removesuffix("s")])[kind]
        return str(found[0]["StateValue"])


def dimensions(of: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Name": name, "Value": value} for name, value in of.items()]


def becomes(state: str, look: Callable[[], str]) -> bool:
    until = monotonic() + WAIT_S
    while look() != state:
        if monotonic() > until:
            return False
        sleep(POLL_S)
    return True


def ring(bench: Bench, one: Alarm) -> list[str]:
    """The states through which an alarm goes as its fault comes and goes, and what was told of them."""
    fault, (query,) = FAULTS[one.family], one.queries.values()
    bench.listen()
    bench.make(one)
    bad = [point for point in minutes(one, fault.bad, time()) if query.matches(point)]
    # All of the fault at the far end of what is looked at: it is over as soon as it was seen.
    began = time()
    bad = [msgspec.structs.replace(point, at=began - one.window_s + MARGIN_S) for point in bad]
    assert bad, f"nothing that {one.name} asks for is said at its fault"
    bench.put(bad)
    states = [bench.state(one.name)]
    sleep(max(0.0, began + MARGIN_S + POLL_S - time()))
    # Nothing is said once all is well: to the emulator, that nothing was counted.
    well = [
        *told(one, fault.good(query), time()),
        Point(query.namespace, query.name, query.dimensions, 0, "None", time()),
    ]
    bench.put(well)
    becomes("OK", lambda: bench.state(one.name))
    states.append(bench.state(one.name))
    return [*states, *bench.heard()]


@pytest.fixture(scope="module")
def boto3_session() -> Any:
    import boto3

    return boto3.Session()


@pytest.fixture(scope="module")
def rung(watched: Imagined, embedded_aws: str, boto3_session: Any) -> dict[str, list[str]]:
    """What became of every alarm that the emulator evaluates, each in an account of its own, all at once."""
    tried = [one for one in alarms(watched) if one.family in EVALUATED]
    benches = [Bench(boto3_session, embedded_aws, number) for number in range(len(tried))]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = threads.map(ring, benches, tried)
        return {one.name: states for one, states in zip(tried, found, strict=True)}


@pytest.mark.emulator
@pytest.mark.parametrize("kind", EVALUATED)
def test_on_the_emulator_it_rings_and_stops_and_both_are_told(
    watched: Imagined, rung: dict[str, list[str]], kind: str
) -> None:
    for one in alarms(watched, kind):
        assert rung[one.name] == ["ALARM", "OK", "ALARM", "OK"], one.name


@pytest.mark.emulator
def test_on_the_emulator_the_environment_is_unhealthy_while_a_critical_alarm_rings(
    watched: Imagined, embedded_aws: str, boto3_session: Any
) -> None:
    bench, fault = Bench(boto3_session, embedded_aws, 99), FAULTS["memory-lost"]
    bench.listen()
    (composite,) = watched.resources("aws_cloudwatch_composite_alarm").values()
    (child,) = alarms(watched, "memory-lost")
    for one in alarms(watched):
        if f'"{one.name}"' in composite["alarm_rule"]:
            bench.make(one if not one.expression else msgspec.structs.replace(child, name=one.name))
    bench.cloudwatch.put_composite_alarm(AlarmName=composite["alarm_name"], AlarmRule=composite["alarm_rule"])
    (query,) = child.queries.values()
    began = time()
    bench.put(
        [
            msgspec.structs.replace(point, at=began - child.window_s + MARGIN_S)
            for point in told(child, fault.bad(query), began)
        ]
    )
    assert becomes("ALARM", lambda: bench.state(composite["alarm_name"], "CompositeAlarms"))
    sleep(max(0.0, began + MARGIN_S + POLL_S - time()))
    bench.put([Point(query.namespace, query.name, query.dimensions, 0, "None", time())])
    assert becomes("OK", lambda: bench.state(composite["alarm_name"], "CompositeAlarms"))


# -- as people have it ------------------------------------------------------------------------------------------------
def test_somebody_is_told_when_an_alarm_rings_and_when_it_stops(watched: Imagined) -> None:
    every = [one.values for one in alarms(watched)] + list(watched.resources("aws_cloudwatch_composite_alarm").values())
    for values in every:
        assert values["alarm_actions"], values["alarm_name"]
        assert values["alarm_actions"] == values["ok_actions"]
        assert re.match(r"\[(critical|warning)\] \w.+\. \S+#[a-z-]+$", values["alarm_description"])


def test_what_is_critical_makes_the_environment_unhealthy(watched: Imagined) -> None:
    (composite,) = watched.resources("aws_cloudwatch_composite_alarm").values()
    critical = {one.name for one in alarms(watched) if one.values["alarm_description"].startswith("[critical]")}
    assert set(re.findall(r'ALARM\("([^"]+)"\)', composite["alarm_rule"])) == critical
    assert len(composite["alarm_rule"]) < 10_240  # CloudWatch API reference, PutCompositeAlarm


def test_each_alarm_has_its_section_in_the_runbook_and_each_section_its_alarm(watched: Imagined) -> None:
    composites = {name.rpartition("#")[2] for name in (
        values["alarm_description"] for values in watched.resources("aws_cloudwatch_composite_alarm").values()
    )}  # fmt: skip
    sections = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sorted(sections) == sorted({one.runbook for one in alarms(watched)} | composites)
    assert len(sections) == len(set(sections))


def test_each_section_of_the_runbook_says_what_it_means_where_to_look_and_what_to_do() -> None:
    for section in RUNBOOK.read_text().split("\n## ")[1:]:
        name, _, text = section.partition("\n")
        assert all(f"**{words}**" in text for words in ("Means", "Look at", "Do")), name


def test_the_runbook_names_commands_that_there_are() -> None:
    from services.cli.main import GROUPS

    known = {word for _, word in GROUPS if word}
    known |= {
        command.name for app, word in GROUPS if word is None for command in app.registered_commands if command.name
    }
    named = set(re.findall(r"`avesa ([a-z-]+)", RUNBOOK.read_text()))
    assert named
    assert named <= known
