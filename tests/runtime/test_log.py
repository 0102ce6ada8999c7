import io
from typing import Any

import msgspec
import pytest

from services.contracts.log import (
    EVENTS,
    Event,
    LeaseGained,
    Level,
    RecordsRejected,
    ShardsBehind,
    TableMerged,
)
from services.runtime.log import Emitter, dimension_sets, emitter, metric_name, units
from services.runtime.settings import Settings
from tests.fakes import FakeClock


def rejected(code: str = "bad_row", count: int = 3) -> RecordsRejected:
    return RecordsRejected(stage="transformer", tenant_id="acme", group="tickets", code=code, count=count)


def lines(
    *events: Event, level: Level = "info", emf: bool = False, secrets: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    out = io.StringIO()
    made = Emitter(level=level, out=out, environment="dev", emf=emf, clock=FakeClock())
    made.hide(secrets)
    for event in events:
        made.emit(event)
    return [msgspec.json.decode(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_time_level_and_fields() -> None:
    (line,) = lines(LeaseGained(scope="raw", name="shardId-0", epoch=4))
    assert line == {
        "at": "2026-01-01T00:00:00.000000Z", "level": "info", "event": "LeaseGained",
        "scope": "raw", "name": "shardId-0", "epoch": 4,
    }  # fmt: skip


def test_events_below_the_level_are_counted_but_not_written() -> None:
    out = io.StringIO()
    made = Emitter(level="error", out=out)
    made.emit(rejected(count=3))
    made.emit(rejected(count=4))
    assert out.getvalue() == ""
    assert made.counters == {("RecordsRejected", "count"): 7}


def test_no_line_shows_a_secret_not_even_one_within_another() -> None:
    (line,) = lines(rejected(code="key hush-hush-hush, hush-hush"), secrets=("hush-hush", "hush-hush-hush"))
    assert line["code"] == "key ***, ***"


def test_values_too_short_to_be_secrets_are_left_alone() -> None:
    (line,) = lines(rejected(code="test"), secrets=("test", ""))
    assert line["code"] == "test"


def test_an_event_that_counts_is_also_a_metric_when_asked_for() -> None:
    _, metric = lines(rejected(), emf=True)
    assert metric["_aws"]["Timestamp"] == 1_767_225_600_000
    (directive,) = metric["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "AVESA"
    assert directive["Dimensions"] == [["Environment"]]
    assert directive["Metrics"] == [{"Name": "RecordsRejectedCount", "Unit": "Count"}]
    assert (metric["RecordsRejectedCount"], metric["Environment"], metric["tenant_id"]) == (3, "dev", "acme")


def test_metrics_are_written_whatever_the_level_and_only_for_what_counts() -> None:
    merged = TableMerged(tenant_id="acme", table="tickets", observations=5, rows_written=2)
    (metric,) = lines(merged, LeaseGained(scope="raw", name="s", epoch=1), level="error", emf=True)
    assert (metric["TableMergedObservations"], metric["TableMergedRowsWritten"]) == (5, 2)


def test_what_is_measured_has_its_unit_and_its_dimensions() -> None:
    (metric,) = lines(ShardsBehind(service="transformer", group="transformer-tickets", ms=1_500), emf=True)
    (directive,) = metric["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["Environment", "Service", "Group"]]
    assert directive["Metrics"] == [{"Name": "ShardsBehindMs", "Unit": "Milliseconds"}]
    assert (metric["ShardsBehindMs"], metric["Service"], metric["Group"]) == (
        1_500,
        "transformer",
        "transformer-tickets",
    )


def test_a_metric_may_be_counted_as_a_whole_and_by_table() -> None:
    (metric,) = lines(TableMerged(tenant_id="acme", table="tickets", observations=5, rows_written=2), emf=True)
    (directive,) = metric["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["Environment"], ["Environment", "Table"]]
    assert (metric["Table"], metric["table"], metric["tenant_id"]) == ("tickets", "tickets", "acme")


@pytest.mark.parametrize("event", EVENTS)
def test_metrics_are_within_what_cloudwatch_takes(event: type[Event]) -> None:
    """At most 100 metrics of a directive, nine dimensions of a set, each one a field of the line: EMF specification."""
    assert len(units(event)) <= 100
    assert all(len(names) <= 9 for names in dimension_sets(event))
    assert len({*map(tuple, dimension_sets(event))}) == len(event.dimensions) > 0
    assert {field for fields in event.dimensions for field in fields} <= set(event.__struct_fields__)
    assert not set(event.counts) & set(event.gauges)


def test_a_terminal_gets_text_instead_of_json() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    Emitter(out=out, clock=FakeClock()).emit(rejected())
    assert "RecordsRejected" in out.getvalue()
    assert not out.getvalue().startswith("{")


def test_a_reader_that_went_away_stops_nobody() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    made = Emitter(out=Gone())
    made.emit(rejected())
    assert made.counters["RecordsRejected", "count"] == 3


@pytest.mark.parametrize("event", EVENTS)
def test_no_field_of_an_event_hides_what_every_line_has(event: type[Event]) -> None:
    assert not {"at", "level", "event", "_aws", "Environment"} & set(event.__struct_fields__)
    assert {*event.counts, *event.gauges} <= set(event.__struct_fields__)
    assert all(metric_name(event, field).isidentifier() for field in (*event.counts, *event.gauges))


def test_the_setting_wins_over_the_level_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    url = "http://127.0.0.1:9"
    emitter(Settings.embedded(url), level="warning").emit(LeaseGained(scope="raw", name="s", epoch=1))
    assert capsys.readouterr().err == ""
    emitter(Settings.embedded(url, log="info"), level="warning").emit(LeaseGained(scope="raw", name="s", epoch=1))
    assert "LeaseGained" in capsys.readouterr().err
