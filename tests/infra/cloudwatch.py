"""Metrics and alarms as CloudWatch has them: what the code emits, what an alarm asks for, and the state that follows.

The state is computed as AWS documents it (CloudWatch user guide, "Alarm evaluation", "Configuring how alarms treat
missing data"), because the emulator that evaluates alarms looks at namespace and name alone: dimensions, single
periods and silence are nothing to it.
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, Literal

import msgspec

from services.contracts.log import EVENTS, Event
from services.runtime.log import NAMESPACE, Emitter, dimension_sets, units
from tests.fakes import FakeClock

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
STATISTICS: Final[Mapping[str, Callable[[list[float]], float]]] = {"Sum": sum, "Maximum": max}
# The only arithmetic that alarms use.
EXPRESSION: Final = re.compile(r"IF\((\w+) / 5 > ([\d.]+) AND (\w+) > ([\d.]+), 1, 0\)")


class Metric(msgspec.Struct, frozen=True):
    """What one time series is called, without the values of its dimensions."""

    namespace: str
    name: str
    dimensions: frozenset[str]


# Of AWS: Kinesis developer guide, "Monitoring with CloudWatch", stream level; EventBridge user guide, "Monitoring".
OF_AWS: Final = {
    Metric("AWS/Kinesis", "IncomingBytes", frozenset({"StreamName"})),
    Metric("AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds", frozenset({"StreamName"})),
    Metric("AWS/Kinesis", "WriteProvisionedThroughputExceeded", frozenset({"StreamName"})),
    Metric("AWS/Events", "TriggeredRules", frozenset({"RuleName"})),
}


def emitted() -> set[Metric]:
    """Every time series that our events make."""
    return {
        Metric(NAMESPACE, name, frozenset(dimensions))
        for event in EVENTS
        for name in units(event)
        for dimensions in dimension_sets(event)
    }


class Point(msgspec.Struct, frozen=True):
    """One value of one time series. `at` is in seconds."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    value: float
    unit: str
    at: float


def points(event: Event, environment: str, at: float) -> list[Point]:
    """What CloudWatch makes of an event that our code says."""
    return [msgspec.structs.replace(point, at=at) for point in _points(event, environment)]


@cache
def _points(event: Event, environment: str) -> list[Point]:
    out = io.StringIO()
    Emitter(level="error", out=out, environment=environment, emf=True, clock=FakeClock()).emit(event)
    line = next(made for text in out.getvalue().splitlines() if "_aws" in (made := msgspec.json.decode(text)))
    (made,) = line["_aws"]["CloudWatchMetrics"]
    return [
        Point(made["Namespace"], one["Name"], {name: line[name] for name in names}, line[one["Name"]], one["Unit"], 0.0)
        for names in made["Dimensions"]
        for one in made["Metrics"]
    ]


class Query(msgspec.Struct, frozen=True):
    """One time series that an alarm looks at."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    statistic: str
    period_s: int

    @property
    def metric(self) -> Metric:
        return Metric(self.namespace, self.name, frozenset(self.dimensions))

    def matches(self, point: Point) -> bool:
        return (self.namespace, self.name, self.dimensions) == (point.namespace, point.name, point.dimensions)


class Alarm(msgspec.Struct, frozen=True):
    """An alarm as Terraform has it. `queries` by the name in `expression`; one under "" where there is none."""

    name: str
    runbook: str
    queries: Mapping[str, Query]
    expression: str
    comparison: str
    threshold: float
    periods: int
    datapoints: int
    missing: str
    values: Mapping[str, Any]

    @property
    def family(self) -> str:
        return self.runbook

    @property
    def period_s(self) -> int:
        return next(iter(self.queries.values())).period_s

    @property
    def window_s(self) -> int:
        return self.period_s * self.periods

    def state(self, known: Sequence[Point], now: float) -> State:
        """The state that `known` leads to, from `now` back; `now` is the end of a period."""
        values = [self._value(known, now - (back + 1) * self.period_s) for back in range(self.periods)]
        if all(value is None for value in values) and self.missing == "missing":
            return "INSUFFICIENT_DATA"
        bad = sum(self.missing == "breaching" if value is None else self._breaches(value) for value in values)
        return "ALARM" if bad >= self.datapoints else "OK"

    def _breaches(self, value: float) -> bool:
        return value > self.threshold if self.comparison == "GreaterThanThreshold" else value < self.threshold

    def _value(self, known: Iterable[Point], since: float) -> float | None:
        """What one period comes to; None where nothing is known of it."""
        found: dict[str, float] = {}
        for name, query in self.queries.items():
            seen = [one.value for one in known if query.matches(one) and since <= one.at < since + query.period_s]
            if not seen:
                return None
            found[name] = STATISTICS[query.statistic](seen)
        if not self.expression:
            return found[""]
        asked = EXPRESSION.fullmatch(self.expression)
        assert asked is not None, self.expression
        alive, tasks, behind, ms = asked.groups()
        return float(found[alive] / 5 > float(tasks) and found[behind] > float(ms))


def alarm(values: Mapping[str, Any]) -> Alarm:
    """Of an `aws_cloudwatch_metric_alarm`."""
    queries, expression = {}, ""
    for one in values["metric_query"] or ():
        if one["expression"]:
            expression = one["expression"]
        for metric in one["metric"] or ():
            queries[one["id"]] = Query(
                metric["namespace"], metric["metric_name"], metric["dimensions"], metric["stat"], metric["period"]
            )
    if not queries:
        queries[""] = Query(
            values["namespace"], values["metric_name"], values["dimensions"], values["statistic"], values["period"]
        )
    return Alarm(
        values["alarm_name"],
        values["alarm_description"].rpartition("#")[2],
        queries,
        expression,
        values["comparison_operator"],
        values["threshold"],
        values["evaluation_periods"],
        values["datapoints_to_alarm"],
        values["treat_missing_data"],
        values,
    )
