"""The views over all tenants, held to the text, to a parser of each dialect and to DuckDB; and the page about them."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import duckdb
import pytest
import sqlglot
from sqlglot import exp

from services.cli.views import ATHENA_BYTES_MAX, ENGINES, Engine, Held, Statement, Target, merged, notes, statements
from services.compactor.iceberg import Warehouse
from services.compactor.parquet import ICEBERG_KINDS
from services.contracts.schema import CanonicalTable, Column
from services.runtime.provision import ensure
from services.runtime.settings import Settings
from tests.cli.conftest import Avesa, looked

PAGE: Final = Path(__file__).parents[2] / "docs" / "querying.md"
ALL: Final = list(Engine)
# What sqlglot keeps as text because it does not know it; by its first words.
UNKNOWN_TO_SQLGLOT: Final = (
    "CREATE EXTERNAL SCHEMA", "CREATE EXTERNAL VOLUME", "CREATE CATALOG INTEGRATION", "CREATE OR REPLACE SECRET",
)  # fmt: skip

# `order` is reserved everywhere, `closed_on` was added for one tenant only.
ACME: Final = Held(
    "avesa_dev_acme", {"order": "decimal", "record_id": "string", "valid_from": "timestamp", "is_current": "bool"}
)
GLOBEX: Final = Held(
    "avesa_dev_globex", {"record_id": "string", "valid_from": "timestamp", "is_current": "bool", "closed_on": "date"}
)
COLUMNS: Final = ["order", "record_id", "valid_from", "is_current", "closed_on"]

ATHENA: Final = """\
CREATE DATABASE IF NOT EXISTS `avesa_dev`;
CREATE OR REPLACE VIEW "avesa_dev"."tickets" AS
SELECT
  "order", "record_id", CAST("valid_from" AT TIME ZONE 'UTC' AS TIMESTAMP(6)) AS "valid_from", "is_current", "closed_on"
FROM (
SELECT
  "order", "record_id", "valid_from", "is_current", CAST(NULL AS DATE) AS "closed_on"
FROM "avesa_dev_acme"."tickets"
UNION ALL
SELECT
  CAST(NULL AS DECIMAL(38, 9)) AS "order", "record_id", "valid_from", "is_current", "closed_on"
FROM "avesa_dev_globex"."tickets"
) AS "rows";
CREATE OR REPLACE VIEW "avesa_dev"."tickets_current" AS
SELECT * FROM "avesa_dev"."tickets" WHERE "is_current";
"""
REDSHIFT: Final = """\
CREATE SCHEMA IF NOT EXISTS "avesa_dev";
CREATE EXTERNAL SCHEMA IF NOT EXISTS "avesa_dev_acme"
FROM DATA CATALOG DATABASE 'avesa_dev_acme' REGION 'us-east-2' IAM_ROLE default;
CREATE EXTERNAL SCHEMA IF NOT EXISTS "avesa_dev_globex"
FROM DATA CATALOG DATABASE 'avesa_dev_globex' REGION 'us-east-2' IAM_ROLE default;
CREATE OR REPLACE VIEW "avesa_dev"."tickets" AS
SELECT
  "order", "record_id", "valid_from", "is_current", CAST(NULL AS DATE) AS "closed_on"
FROM "avesa_dev_acme"."tickets"
UNION ALL
SELECT
  CAST(NULL AS DECIMAL(38, 9)) AS "order", "record_id", "valid_from", "is_current", "closed_on"
FROM "avesa_dev_globex"."tickets"
WITH NO SCHEMA BINDING;
CREATE OR REPLACE VIEW "avesa_dev"."tickets_current" AS
SELECT * FROM "avesa_dev"."tickets" WHERE "is_current"
WITH NO SCHEMA BINDING;
"""
SNOWFLAKE: Final = """\
CREATE SCHEMA IF NOT EXISTS "AVESA_DEV";
CREATE OR REPLACE VIEW "AVESA_DEV"."TICKETS" AS
SELECT
  "order" AS "ORDER", "record_id" AS "RECORD_ID", "valid_from" AS "VALID_FROM", "is_current" AS "IS_CURRENT",
  "closed_on" AS "CLOSED_ON"
FROM (
SELECT
  "order", "record_id", "valid_from", "is_current", CAST(NULL AS DATE) AS "closed_on"
FROM "LAKE"."avesa_dev_acme"."tickets"
UNION ALL
SELECT
  CAST(NULL AS NUMBER(38, 9)) AS "order", "record_id", "valid_from", "is_current", "closed_on"
FROM "LAKE"."avesa_dev_globex"."tickets"
) AS "rows";
CREATE OR REPLACE VIEW "AVESA_DEV"."TICKETS_CURRENT" AS
SELECT * FROM "AVESA_DEV"."TICKETS" WHERE "IS_CURRENT";
"""
SPARK: Final = """\
CREATE OR REPLACE TEMPORARY VIEW `tickets` AS
SELECT
  `order`, `record_id`, `valid_from`, `is_current`, CAST(NULL AS DATE) AS `closed_on`
FROM `lake`.`avesa_dev_acme`.`tickets`
UNION ALL
SELECT
  CAST(NULL AS DECIMAL(38, 9)) AS `order`, `record_id`, `valid_from`, `is_current`, `closed_on`
FROM `lake`.`avesa_dev_globex`.`tickets`;
CREATE OR REPLACE TEMPORARY VIEW `tickets_current` AS
SELECT * FROM `tickets` WHERE `is_current`;
"""
DUCKDB: Final = """\
CREATE OR REPLACE SECRET "lake" (TYPE s3, PROVIDER credential_chain, REGION 'us-east-2');
ATTACH IF NOT EXISTS ':' AS "lake" (TYPE iceberg, ENDPOINT_TYPE 'glue', SECRET "lake");
CREATE SCHEMA IF NOT EXISTS "avesa_dev";
CREATE OR REPLACE VIEW "avesa_dev"."tickets" AS
SELECT
  "order", "record_id", "valid_from", "is_current", CAST(NULL AS DATE) AS "closed_on"
FROM "lake"."avesa_dev_acme"."tickets"
UNION ALL
SELECT
  CAST(NULL AS DECIMAL(38, 9)) AS "order", "record_id", "valid_from", "is_current", "closed_on"
FROM "lake"."avesa_dev_globex"."tickets";
CREATE OR REPLACE VIEW "avesa_dev"."tickets_current" AS
SELECT * FROM "avesa_dev"."tickets" WHERE "is_current";
"""
GOLDEN: Final = dict(zip(ALL, (ATHENA, REDSHIFT, SNOWFLAKE, SPARK, DUCKDB), strict=True))


def made(engine: Engine, *found: Held, table: str = "tickets") -> list[Statement]:
    return statements(Target(engine, "avesa_dev", "us-east-2"), {table: found or (GLOBEX, ACME)})


def parsed(sql: str, dialect: str) -> list[exp.Expr]:
    """What a parser makes of it; what it only keeps as text has to be on our list."""
    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    found = [one for one in sqlglot.parse(sql, dialect=dialect) if one is not None]
    for one in found:
        assert not isinstance(one, exp.Command) or one.sql(dialect).startswith(UNKNOWN_TO_SQLGLOT), one
    return found


@pytest.fixture
def lake() -> Iterator[duckdb.DuckDBPyConnection]:
    """The two tenants' tables in a DuckDB, under the names they have in the lake."""
    with duckdb.connect() as connection:
        connection.execute("""
            SET TimeZone = 'America/New_York';
            ATTACH ':memory:' AS lake;
            CREATE SCHEMA lake.avesa_dev_acme;
            CREATE SCHEMA lake.avesa_dev_globex;
            CREATE TABLE lake.avesa_dev_acme.tickets
                ("order" DECIMAL(38, 9), record_id VARCHAR, valid_from TIMESTAMPTZ, is_current BOOLEAN);
            INSERT INTO lake.avesa_dev_acme.tickets VALUES
                (1.5, '1', '2026-01-31 09:00Z', false), (2, '1', '2026-01-31 10:00Z', true);
            -- in another order than the view's
            CREATE TABLE lake.avesa_dev_globex.tickets
                (closed_on DATE, is_current BOOLEAN, valid_from TIMESTAMPTZ, record_id VARCHAR);
            INSERT INTO lake.avesa_dev_globex.tickets VALUES ('2026-02-01', true, '2026-01-30 00:00Z', '9');
            CREATE SCHEMA lake.avesa_dev;
            CREATE SCHEMA avesa_dev;
        """)
        yield connection


# -- the text ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("engine", ALL)
def test_each_engine_gets_its_own_sql(engine: Engine) -> None:
    assert "".join(one.sql + ";\n" for one in made(engine)) == GOLDEN[engine]


def test_the_order_of_columns_is_the_widest_tables_whatever_the_order_of_tenants() -> None:
    narrow, wide = Held("a", {"z": "string", "x": "string"}), Held("b", {"x": "string", "y": "date", "w": "bool"})
    assert list(merged([narrow, wide])) == list(merged([wide, narrow])) == ["x", "y", "w", "z"]


def test_a_column_of_two_kinds_is_text_for_all() -> None:
    text, number = Held("a", {"n": "string"}), Held("b", {"n": "int64"})
    view = made(Engine.SPARK, number, text)[-1].sql
    assert "  `n`\nFROM `lake`.`a`" in view
    assert "  CAST(`n` AS STRING) AS `n`\nFROM `lake`.`b`" in view


def test_a_timeline_has_no_current_rows() -> None:
    entries = Held("avesa_dev_acme", {"record_id": "string", "op": "string"})
    names = [one.name for one in made(Engine.ATHENA, entries, table="tickets_timeline") if one.kind == "view"]
    assert names == ["tickets_timeline"]


@pytest.mark.parametrize("engine", ALL)
def test_every_kind_of_column_has_a_type(engine: Engine) -> None:
    assert set(ICEBERG_KINDS.values()) | {"json"} == set(ENGINES[engine].types)


# -- parsers ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("engine", ALL)
def test_a_parser_of_the_dialect_reads_every_statement(engine: Engine) -> None:
    for statement in made(engine):
        (tree,) = parsed(statement.sql, engine)
        if statement.kind == "view":
            assert isinstance(tree, exp.Create)
            assert tree.kind == "VIEW"


def test_duckdb_itself_reads_what_is_for_duckdb(lake: duckdb.DuckDBPyConnection) -> None:
    assert [len(lake.extract_statements(one.sql)) for one in made(Engine.DUCKDB)] == [1] * 5


# -- rows -------------------------------------------------------------------------------------------------------------
def test_the_views_show_every_tenants_rows_and_null_where_a_column_is_missing(lake: duckdb.DuckDBPyConnection) -> None:
    for one in made(Engine.DUCKDB):
        if one.kind == "view":
            lake.execute(one.sql)
    shown = lake.execute("SELECT * FROM avesa_dev.tickets_current ORDER BY record_id")
    assert [column[0] for column in shown.description or ()] == COLUMNS
    rows = [(str(number), key, stamp.isoformat(), now, day) for number, key, stamp, now, day in shown.fetchall()]
    assert [(number, key, str(day)) for number, key, _, _, day in rows] == [
        ("2.000000000", "1", "None"),
        ("None", "9", "2026-02-01"),
    ]
    assert lake.execute("SELECT count(*) FROM avesa_dev.tickets").fetchall() == [(3,)]


@pytest.mark.parametrize("engine", ALL)
def test_every_engines_views_translated_show_the_same_rows(engine: Engine, lake: duckdb.DuckDBPyConnection) -> None:
    lake.execute("USE lake" if engine in (Engine.ATHENA, Engine.REDSHIFT) else "USE memory")
    for one in made(engine):
        if one.kind == "view":
            sql = one.sql.removesuffix("WITH NO SCHEMA BINDING")
            lake.execute(sqlglot.transpile(sql, read=engine, write="duckdb")[0])
    view = "tickets" if engine is Engine.SPARK else "avesa_dev.tickets"
    instant = "valid_from AT TIME ZONE 'UTC'" if engine is Engine.ATHENA else "valid_from"
    rows = lake.execute(f"""
        SELECT "order"::DOUBLE, record_id, epoch({instant})::BIGINT, is_current, closed_on::VARCHAR
        FROM {view} ORDER BY valid_from
    """).fetchall()
    assert rows == [
        (None, "9", 1769731200, True, "2026-02-01"),
        (1.5, "1", 1769850000, False, None),
        (2.0, "1", 1769853600, True, None),
    ]


# -- the command ------------------------------------------------------------------------------------------------------
def table(**columns: Any) -> CanonicalTable:
    return CanonicalTable("tickets", {name: Column(kind) for name, kind in columns.items()})


def test_the_tables_are_those_of_the_catalog(avesa: Avesa, aws: Settings) -> None:
    looked(ensure(aws))
    warehouse = Warehouse.on_glue(aws)
    warehouse.history("acme-msp", table(summary="string"))
    warehouse.history("globex", table(summary="string", order="decimal"))
    told = avesa("views", "tickets", "--engine", "duckdb", "--json")
    assert told.code == 0, told.err
    assert [(one["kind"], one["name"]) for one in told.records[-2:]] == [
        ("view", "tickets"),
        ("view", "tickets_current"),
    ]
    assert f'FROM "lake"."avesa_{aws.environment}_acme__msp"."tickets"' in told.records[-2]["sql"]
    assert 'CAST(NULL AS DECIMAL(38, 9)) AS "order"' in told.records[-2]["sql"]
    assert "2 tenants. Run this again" in told.err
    one = avesa("views", "--engine", "redshift", "--tenant-id", "globex")
    assert one.code == 0, one.err
    assert "UNION ALL" not in one.out
    assert one.out.endswith("WITH NO SCHEMA BINDING;\n\n")
    none = avesa("views", "tickets", "devices", "--engine", "athena")
    assert "no tenant has devices yet" in none.err


def test_where_there_is_no_table_the_command_says_so(avesa: Avesa, aws: Settings) -> None:
    told = avesa("views", "--engine", "spark")
    assert (told.code, told.out) == (1, "")
    assert "no such table is in the lake of environment " in told.err
    assert "`avesa status` says why" in told.err


def test_an_unknown_table_is_compared_with_those_there_are(avesa: Avesa) -> None:
    told = avesa("views", "tickts", "--engine", "spark")
    assert (told.code, "Did you mean 'tickets'?" in told.err) == (2, True)


def test_athena_is_not_given_more_than_it_takes_without_a_word() -> None:
    wide = {f"column_{number}": "string" for number in range(1000)}
    found = {"tickets": [Held(f"avesa_dev_{number}", wide) for number in range(30)]}
    target = Target(Engine.ATHENA, "avesa_dev", "us-east-2")
    *_, last = notes(target, [], found, statements(target, found))
    assert last == f"Athena takes {ATHENA_BYTES_MAX:,} bytes a statement, too few for tickets: name tenants."


# -- the page ---------------------------------------------------------------------------------------------------------
BLOCKS: Final = re.findall(r"^```sql (\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
EVERY: Final = [sql for tag, sql in BLOCKS if tag == "every"]
SHOWN: Final = [(engine, sql) for tag, sql in BLOCKS for engine in ALL if tag in (engine, "every")]


def test_the_page_shows_sql_of_every_engine_and_no_other() -> None:
    assert {tag for tag, _ in BLOCKS} == {*ALL, "every"}
    assert PAGE.read_text().count("```sql") == len(BLOCKS)


@pytest.mark.parametrize(("engine", "sql"), SHOWN)
def test_every_sql_of_the_page_parses_in_its_dialect(engine: Engine, sql: str) -> None:
    assert parsed(sql, engine)
    if engine is Engine.DUCKDB:
        assert duckdb.extract_statements(sql)


@pytest.fixture
def answers() -> Iterator[list[list[tuple[Any, ...]]]]:
    """What the page's questions find, in its order: ticket 4711 was open at 9:00, is closed since 10:00; 4712 is gone.

    T, T1 and T2 are 9:15, 9:15 and 11:00.
    """
    with duckdb.connect() as connection:
        connection.execute("""
            CREATE TABLE tickets AS SELECT 'acme-msp' AS tenant_id, 'connectwise' AS service, 'tickets' AS family, *,
                valid_to IS NULL AS is_current, valid_from AS observed_at, NULL AS owner_name, 'Printer' AS summary,
                '7' AS company_id
            FROM (VALUES
                ('4711', 'Open', TIMESTAMPTZ '2026-01-31 09:00Z', TIMESTAMPTZ '2026-01-31 10:00Z'),
                ('4711', 'Closed', '2026-01-31 10:00Z', NULL),
                ('4712', 'Open', '2026-01-31 08:00Z', '2026-01-31 09:10Z')
            ) AS versions (record_id, status, valid_from, valid_to);
            CREATE VIEW tickets_current AS SELECT * FROM tickets WHERE is_current;
            CREATE TABLE tickets_timeline AS SELECT 'acme-msp' AS tenant_id, 'connectwise' AS service,
                'tickets' AS family, '4712' AS record_id, 'delete' AS op,
                TIMESTAMPTZ '2026-01-31 09:10Z' AS effective_at;
            CREATE TABLE companies_current AS SELECT 'acme-msp' AS tenant_id, 'connectwise' AS service,
                '7' AS record_id, 'Acme' AS company_name, NULL AS territory_name;
        """)
        instants = {"T": "09:15", "T1": "09:15", "T2": "11:00"}
        asked = [
            re.sub(r"\bT[12]?\b", lambda name: f"TIMESTAMPTZ '2026-01-31 {instants[name[0]]}+00'", sql) for sql in EVERY
        ]
        yield [connection.execute(sql).fetchall() for sql in asked]


def test_the_questions_of_the_page_find_what_it_says(answers: list[list[tuple[Any, ...]]]) -> None:
    now, then, history, changed, deleted, joined = answers
    assert now == [("acme-msp", "Closed", 1)]
    assert then == [("acme-msp", "connectwise", "4711", "Open")]
    assert [row[2] for row in history] == ["Open", "Closed"]
    assert [(row[2], *row[4:]) for row in changed] == [("4711", "Open", "Closed")]
    assert [row[:3] for row in deleted] == [("acme-msp", "connectwise", "4712")]
    assert joined == [("4711", "Printer", "Acme", None)]
