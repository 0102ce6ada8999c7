"""SQL over the lake, and one record's versions as a timeline: a small vendor, read by the whole pipeline."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from services.cli.lake import ROWS_SHOWN_MAX, distinct, fits, named_tables, show_answer
from services.cli.main import main
from services.cli.screen import Screen
from services.compactor.lake import Answer
from services.contracts.times import UtcTime, utc_text
from services.runtime.settings import Settings
from services.sandbox.recipe import Data
from services.sandbox.sites import Site
from services.sandbox.times import seconds_of
from services.sandbox.vendor import start
from services.sandbox.world import World
from tests.cli.conftest import KEYS, Avesa, given, looping
from tests.cli.test_screen import Terminal

TICKETS = "service/tickets"
SETUP = ("setup-service", "--tenant-id", "acme-msp", "--service", "connectwise")


class Pipeline(NamedTuple):
    """An environment with one connected tenant; its vendor answers, and may be changed."""

    settings: Settings
    world: World
    url: str

    @property
    def site(self) -> Site:
        return self.world.sites["acme"]

    def run(self, *arguments: str) -> None:
        assert main(arguments) == 0, arguments

    def use(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """Make this the environment that commands find."""
        assert self.settings.endpoint_url is not None
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
        monkeypatch.setenv("AWS_ENDPOINT_URL", self.settings.endpoint_url)
        monkeypatch.setenv("ENVIRONMENT", self.settings.environment)
        for field, value in given(self.url).items():
            monkeypatch.setenv(f"CONNECTWISE_{field.upper()}", value)


@contextmanager
def pipeline(settings: Settings, folder: Path) -> Iterator[Pipeline]:
    """A vendor with three records of everything, connected and read once, all the way into the lake."""
    world = World(lambda: datetime.now(UTC), Random(1))
    world.add_site("acme", KEYS)
    world.populate("acme", {})
    with looping() as loop, pytest.MonkeyPatch.context() as monkeypatch:
        running = asyncio.run_coroutine_threadsafe(start(world), loop).result()
        made = Pipeline(settings, world, running.url)
        made.use(monkeypatch, folder)
        made.run(*SETUP)
        made.run("run", "--once")
        yield made
        asyncio.run_coroutine_threadsafe(running.close(), loop).result()


class Lives(NamedTuple):
    """A ticket that was changed twice, at `first` and `second`, another that was deleted, and one left alone."""

    changed: str
    deleted: str
    untouched: str
    first: UtcTime
    second: UtcTime


@pytest.fixture(scope="module")
def lived(embedded_aws: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pipeline, Lives]]:
    """A pipeline whose vendor has lived for a while: every change was read before the next."""
    settings = Settings.embedded(embedded_aws, environment="testlake")
    with pipeline(settings, tmp_path_factory.mktemp("lake")) as made:
        yield made, _live(made)


def _live(made: Pipeline) -> Lives:
    table, now_s = made.site.tables[TICKETS], seconds_of(datetime.now(UTC))
    oldest_first = sorted(table.ids, key=lambda ticket: table.entries[ticket].stamp)
    changed, untouched, deleted = oldest_first[:3]
    stamps = (now_s - 40, now_s - 20)
    summaries: tuple[Data, ...] = ({"summary": "Printer on fire"}, {"summary": "Printer is out", "budgetHours": 2.5})
    for stamp, fields in zip(stamps, summaries, strict=True):
        made.world.update("acme", TICKETS, changed, fields, stamped_at=stamp)
        if stamp == stamps[-1]:
            made.world.delete("acme", TICKETS, deleted)
        made.run("run", "--once", "--endpoint", "tickets")
    first, second = (utc_text(datetime.fromtimestamp(stamp, UTC)) for stamp in stamps)
    return Lives(str(changed), str(deleted), str(untouched), first, second)


@pytest.fixture
def lives(lived: tuple[Pipeline, Lives], avesa: Avesa, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lives:
    """The tickets, in the environment that `avesa` finds."""
    lived[0].use(monkeypatch, tmp_path)
    return lived[1]


# -- query ------------------------------------------------------------------------------------------------------------
def test_sql_sees_current_rows_and_all_versions(avesa: Avesa, lives: Lives) -> None:
    told = avesa("query", "SELECT record_id, summary FROM tickets WHERE is_current ORDER BY 1")
    assert told.code == 0, told.err
    heading, *lines = told.out.splitlines()
    assert heading.split() == ["record_id", "summary"]
    rows = dict(line.split(maxsplit=1) for line in lines)
    assert rows[lives.changed] == "Printer is out"
    assert lives.deleted not in rows
    sql = f"SELECT count(*) AS versions FROM tickets WHERE record_id = '{lives.changed}'"
    assert avesa("query", sql, "--json").records == [{"versions": 3}]


def test_a_machine_gets_times_as_utc_text_and_exact_numbers(avesa: Avesa, lives: Lives) -> None:
    sql = f"SELECT valid_from, budget_hours FROM tickets WHERE record_id = '{lives.changed}' AND is_current"
    told = avesa("query", sql, "--tenant-id", "acme-msp", "--json")
    assert told.records == [{"valid_from": lives.second, "budget_hours": "2.5"}]


def test_a_query_may_be_as_of_a_time(avesa: Avesa, lives: Lives) -> None:
    sql = f"SELECT summary FROM tickets WHERE record_id = '{lives.changed}'"
    assert avesa("query", sql, "--as-of", lives.first, "--json").records == [{"summary": "Printer on fire"}]


def test_raw_records_are_as_the_vendor_gave_them(avesa: Avesa, lives: Lives) -> None:
    sql = f"SELECT payload->>'summary' AS said FROM raw.connectwise.tickets WHERE record_id = '{lives.changed}'"
    assert avesa("query", sql, "--json").records == [{"said": "Printer is out"}]


def test_an_endpoint_that_no_mapping_file_knows_is_not_taken_for_an_empty_one(avesa: Avesa, lives: Lives) -> None:
    told = avesa("query", "SELECT count(*) FROM raw.connectwise.tikets")
    assert "no mapping file knows raw.connectwise.tikets. Did you mean 'raw.connectwise.tickets'?" in told.err


@pytest.mark.parametrize(("typed", "meant"), [("tickts", "tickets"), ("companys", "companies")])
def test_an_unknown_table_is_compared_with_those_there_are(avesa: Avesa, lives: Lives, typed: str, meant: str) -> None:
    told = avesa("query", f"SELECT * FROM {typed}")
    assert (told.code, told.out) == (2, "")
    assert f"there is no table '{typed}'" in told.err
    assert f"Did you mean '{meant}'? Known: agreements, " in told.err


@pytest.mark.parametrize("sql", ["SELEC 1", "DELETE FROM tickets", "SELECT nonsense FROM tickets"])
def test_bad_sql_is_a_mistake_of_usage(avesa: Avesa, lives: Lives, sql: str) -> None:
    told = avesa("query", sql)
    assert (told.code, told.out) == (2, "")
    assert "error: " in told.err
    assert "bug of ours" not in told.err


def test_a_tenant_that_is_not_there_is_compared_with_those_that_are(avesa: Avesa, lives: Lives) -> None:
    told = avesa("query", "SELECT 1", "--tenant-id", "acme-mps")
    assert (told.code, "there is no tenant acme-mps" in told.err, "'acme-msp'" in told.err) == (2, True, True)


@pytest.mark.parametrize("arguments", [["query"], ["query", "--tables"], ["query", " ; "]])
def test_without_sql_the_tables_are_listed(avesa: Avesa, arguments: list[str]) -> None:
    told = avesa(*arguments)
    names = [line.split()[0] for line in told.out.splitlines()]
    assert told.code == 0
    assert {"tickets", "raw.connectwise.tickets"} <= set(names)
    found = {record["name"]: record for record in avesa(*arguments, "--json").records}
    assert {"summary", "valid_from"} <= set(found["tickets"]["columns"])


def test_an_empty_lake_says_so_and_what_to_do(avesa: Avesa, aws: Settings) -> None:
    told = avesa("query", "SELECT count(*) AS tickets FROM tickets", "--json")
    assert (told.code, told.records) == (0, [{"tickets": 0}])
    assert f"environment {aws.environment}" in told.err
    assert "holds no table yet: `avesa status` says why" in told.err


# -- history ----------------------------------------------------------------------------------------------------------
def test_a_history_tells_each_version_how_long_it_held_and_what_changed(avesa: Avesa, lives: Lives) -> None:
    told = avesa("history", "tickets", lives.changed)
    assert told.code == 0, told.err
    title, *lines = told.out.splitlines()
    assert title == f"tickets {lives.changed} of acme-msp, connectwise: 3 versions, current now"
    steps = [line.split("  ") for line in lines if not line.startswith("      ")]
    assert [step[2].strip() for step in steps] == ["first seen", "changed", "changed"]
    assert any("held 20 s" in line for line in lines)
    assert "      summary: Printer on fire -> Printer is out" in lines
    assert any(line.startswith("      budget_hours: ") and line.endswith(" -> 2.5") for line in lines)


def test_a_machine_gets_every_step_with_its_row(avesa: Avesa, lives: Lives) -> None:
    first, second, third = avesa("history", "tickets", lives.changed, "--json").records
    assert [step["event"] for step in (first, second, third)] == ["first seen", "changed", "changed"]
    assert (second["at"], second["until"], third["until"]) == (lives.first, lives.second, None)
    assert third["changed"]["summary"] == {"before": "Printer on fire", "after": "Printer is out"}
    assert third["row"]["budget_hours"] == "2.5"


def test_a_deleted_record_tells_when_it_went(avesa: Avesa, lives: Lives) -> None:
    told = avesa("history", "tickets", lives.deleted, "--service", "ConnectWise")
    assert told.out.splitlines()[0].endswith(": 1 version, deleted now")
    assert "  deleted     gone for " in told.out.splitlines()[-1]
    last = avesa("history", "tickets", lives.deleted, "--json").records[-1]
    assert (last["event"], last["row"], last["observed_at"]) == ("deleted", None, last["at"])


def test_as_of_a_time_one_version_is_shown_whole(avesa: Avesa, lives: Lives) -> None:
    told = avesa("history", "tickets", lives.changed, "--as-of", lives.first)
    lines = told.out.splitlines()
    assert "the version from" in lines[0]
    assert ["summary", "Printer on fire"] in [line.split(maxsplit=1) for line in lines]
    (row,) = avesa("history", "tickets", lives.changed, "--as-of", lives.first, "--json").records
    assert (row["summary"], row["valid_from"], row["valid_to"]) == ("Printer on fire", lives.first, lives.second)


def test_as_of_a_time_before_or_after_its_life_there_is_no_such_record(avesa: Avesa, lives: Lives) -> None:
    early = avesa("history", "tickets", lives.changed, "--as-of", "1999-12-31")
    late = avesa("history", "tickets", lives.deleted, "--as-of", "2999-12-31")
    assert (early.code, late.code, early.out + late.out) == (1, 1, "")
    assert "at 1999-12-31 00:00:00 there was no such record" in early.err
    assert "connectwise: first seen at " in early.err
    assert "connectwise: deleted at " in late.err


def test_an_unknown_record_fails_with_a_sentence(avesa: Avesa, lives: Lives) -> None:
    told = avesa("history", "tickets", "99999999")
    assert (told.code, told.out) == (1, "")
    assert "error: there is no record '99999999' in tickets" in told.err
    other = avesa("history", "tickets", lives.changed, "--service", "servicenow")
    assert (other.code, "It is of connectwise." in other.err) == (1, True)


def test_an_unknown_table_of_a_history_is_compared_with_those_there_are(avesa: Avesa) -> None:
    told = avesa("history", "ticket", "1")
    assert (told.code, "Did you mean 'tickets'?" in told.err) == (2, True)


# -- pure pieces ------------------------------------------------------------------------------------------------------
def shown(answer: Answer, *, terminal: bool) -> tuple[list[str], str]:
    out = Terminal() if terminal else StringIO()
    show_answer(Screen(out, err := StringIO()), answer)
    return out.getvalue().splitlines(), err.getvalue()


def test_a_terminal_gets_some_rows_and_a_line_about_the_rest_and_a_file_gets_all() -> None:
    answer = Answer(("n",), [(number,) for number in range(ROWS_SHOWN_MAX + 3)])
    lines, said = shown(answer, terminal=True)
    assert [line.strip() for line in lines if line.strip().isdecimal()][-1] == str(ROWS_SHOWN_MAX - 1)
    assert said.startswith("3 more rows: ")
    lines, said = shown(answer, terminal=False)
    assert (len(lines), said) == (1 + ROWS_SHOWN_MAX + 3, "")


def test_rows_too_wide_for_a_terminal_stand_one_column_a_line() -> None:
    answer = Answer(tuple(f"column_{number}" for number in range(50)), [tuple(range(50))])
    lines, _ = shown(answer, terminal=True)
    assert lines[0] == "row 1"
    assert ["column_49", "49"] in [line.split() for line in lines]


def test_an_answer_without_rows_says_so() -> None:
    assert shown(Answer(("n",), []), terminal=False) == ([], "no rows\n")


def test_columns_of_one_name_get_names_that_differ() -> None:
    assert distinct(["id", "id", "id_2", "id"]) == ["id", "id_2", "id_2_2", "id_3"]


def test_a_table_fits_when_no_word_of_it_is_torn() -> None:
    assert fits(["id", "name"], [(1, "x" * 30)], 40)
    assert not fits(["id", "name"], [(1, "x" * 30)], 33)
    assert fits(["text"], [("word " * 100,)], 40)


def test_names_behind_from_and_join_are_found_for_hints() -> None:
    sql = 'select * FROM tickets t join raw."connectwise:berlin".boards b on true where x in (select 1 from Users)'
    assert named_tables(sql) == ["tickets", "raw.connectwise:berlin.boards", "Users"]
