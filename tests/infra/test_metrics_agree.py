"""Whatever watches the platform asks for what the code says: its metrics, dimensions, events and their fields."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest

from services.contracts.log import EVENTS, TIERS, Event
from services.extractor.service import group_of
from services.runtime.log import ENVIRONMENT, NAMESPACE, dimension_sets, units
from services.transformer.groups import bind
from tests.infra.cloudwatch import OF_AWS, Alarm, Metric, alarm, emitted
from tests.infra.terraform import Imagined

BY_NAME: Final = {event.__name__: event for event in EVENTS}
SEARCH: Final = re.compile(r"SEARCH\('\{(\w+),([\w,]+)\} MetricName=\"(\w+)\" Environment=\"([\w-]+)\"', '\w+', \d+\)")
# Application Auto Scaling API reference, PredefinedMetricSpecification.
OF_SCALING: Final = {"ECSServiceAverageCPUUtilization"}
# Words of Logs Insights, and the fields that every line has.
OF_LOGS: Final = {
    *("filter", "in", "and", "ispresent", "stats", "sum", "max", "latest", "count", "as", "by", "sort", "desc", "limit")
}
OF_LINES: Final = {"event", "level", "at", "@timestamp"}
# Events at level error that no alarm is for, and why.
NO_ALARM: Final[dict[str, str]] = {}


def alarms(of: Imagined) -> list[Alarm]:
    """All there are, those that only scale included."""
    return [alarm(values) for values in of.resources("aws_cloudwatch_metric_alarm").values()]


def widgets(of: Imagined) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every panel of every dashboard, with the dashboard's name."""
    for values in of.resources("aws_cloudwatch_dashboard").values():
        for widget in msgspec.json.decode(values["dashboard_body"])["widgets"]:
            yield values["dashboard_name"], widget


def shown(of: Imagined) -> Iterator[Metric]:
    """What panels show."""
    for _, widget in widgets(of):
        for row in widget["properties"].get("metrics", ()):
            if isinstance(row[0], dict):
                asked = SEARCH.fullmatch(row[0]["expression"])
                assert asked is not None, row
                yield Metric(asked[1], asked[3], frozenset(asked[2].split(",")))
            else:
                yield Metric(row[0], row[1], frozenset(row[2::2]))


def test_every_alarm_asks_for_a_metric_that_is_there(watched: Imagined) -> None:
    asked = {query.metric for one in alarms(watched) for query in one.queries.values()}
    assert asked
    assert asked <= emitted() | OF_AWS


def test_every_panel_shows_a_metric_that_is_there(watched: Imagined) -> None:
    found = set(shown(watched))
    assert len(found) > len(EVENTS) / 2
    assert found <= emitted() | OF_AWS


def test_what_is_listed_of_aws_is_what_we_use(watched: Imagined) -> None:
    used = {query.metric for one in alarms(watched) for query in one.queries.values()} | set(shown(watched))
    assert used - emitted() == OF_AWS


def test_fleets_scale_by_a_metric_that_is_there(watched: Imagined) -> None:
    policies = watched.resources("aws_appautoscaling_policy").values()
    assert policies
    actions = {action for one in alarms(watched) for action in one.values["alarm_actions"] or ()}
    for policy in policies:
        if policy["policy_type"] == "StepScaling":  # an alarm of its own moves it, held to what is emitted above
            assert policy["arn"] in actions
        else:
            (tracking,) = policy["target_tracking_scaling_policy_configuration"]
            assert not tracking["customized_metric_specification"]
            (specification,) = tracking["predefined_metric_specification"]
            assert specification["predefined_metric_type"] in OF_SCALING


def test_dimensions_have_the_values_that_processes_give_them(watched: Imagined) -> None:
    """Each ECS service starts a command; the code calls the fleet of that command so."""
    said = set()
    for task in watched.resources("aws_ecs_task_definition").values():
        (container,) = msgspec.json.decode(task["container_definitions"])
        service, *options = container["command"]
        given = dict(pairwise([*options, ""]))
        if service == "extractor":
            said.add((service, group_of([one for one in given.get("--services", "").split(",") if one])))
        elif service == "transformer":
            said.add((service, bind(given.get("--group"), None, None, []).group))
        elif service == "compactor":
            said.add((service, service))
    asked = [query for one in alarms(watched) for query in one.queries.values()]
    fleets = [query.dimensions for query in asked if "Group" in query.dimensions]
    assert {(found["Service"], found["Group"]) for found in fleets} == said
    assert {query.dimensions["Tier"] for query in asked if "Tier" in query.dimensions} == set(TIERS)
    assert {query.dimensions[ENVIRONMENT] for query in asked if query.namespace == NAMESPACE} == {"dev"}


def test_production_is_shown_in_the_account_that_watches_it(watched: Imagined) -> None:
    accounts: dict[str, set[str]] = {}
    for name, widget in widgets(watched):
        if widget["type"] in ("metric", "log"):
            accounts.setdefault(name, set()).add(widget["properties"].get("accountId", ""))
    assert accounts == {"AVESA-DataPipeline-DEV": {""}, "AVESA-DataPipeline-PROD": {"444455556666"}}


def test_panels_lie_side_by_side_and_on_no_other(watched: Imagined) -> None:
    taken: set[tuple[str, int, int]] = set()
    for name, widget in widgets(watched):
        place = {
            (name, x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not place & taken
        assert widget["x"] + widget["width"] <= 24
        taken |= place


def test_logs_are_asked_for_events_and_fields_that_there_are(watched: Imagined) -> None:
    queries = [values["query_string"] for values in watched.resources("aws_cloudwatch_query_definition").values()]
    queries += [
        widget["properties"]["query"].rpartition("' | ")[2] for _, widget in widgets(watched) if widget["type"] == "log"
    ]
    assert len(queries) > 10
    for query in queries:
        quoted = re.findall(r'"([^"]*)"', query)
        events = [BY_NAME[word] for word in quoted if word[:1].isupper() and word != "TENANT"]
        assert events or "level" in query, query
        fields = {field for event in events or EVENTS for field in (*event.__struct_fields__, *units(event))}
        aliases = set(re.findall(r" as (\w+)", query))
        words = set(re.findall(r"@?[A-Za-z_]+", re.sub(r'"[^"]*"', "", query)))
        assert words <= fields | OF_LOGS | OF_LINES | aliases, query


@pytest.mark.parametrize("event", [event for event in EVENTS if event.level == "error"])
def test_what_is_an_error_rings(watched: Imagined, event: type[Event]) -> None:
    assert event.counts, f"{event.__name__} is an error, and no metric"
    ringing = {query.name for one in alarms(watched) if one.values["ok_actions"] for query in one.queries.values()}
    assert event.__name__ in NO_ALARM or set(units(event)) & ringing


def test_no_dimension_is_of_many_values() -> None:
    """Each value is a metric, paid for by the month: tenants, endpoints and shards are in the lines instead."""
    few = {ENVIRONMENT, "Service", "Group", "Table", "Tier"}
    assert {name for event in EVENTS for names in dimension_sets(event) for name in names} == few
