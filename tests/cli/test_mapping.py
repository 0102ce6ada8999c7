"""`avesa mapping`: what the files say, and every problem they have."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import Avesa

PETS: dict[str, Any] = {
    "table": "pets",
    "description": "Animals",
    "columns": {"name": {"type": "string", "description": "What it answers to"}, "legs": {"type": "int64"}},
}
ZOO: dict[str, Any] = {
    "service": "zoo",
    "title": "City Zoo",
    "base_url": "https://zoo.example/{place}",
    "auth": {"type": "headers", "headers": {"Authorization": "Bearer {token}"}},
    "credentials": {"place": {"title": "Place"}, "token": {"title": "Token", "hint": "Ask.", "secret": True}},
    "endpoints": {
        "animals": {
            "path": "animals",
            "record_id": "id",
            "canonical": {"table": "pets", "fields": {"name": {"type": "first", "paths": ["nick", "name"]}}},
        },
        "visitors": {"path": "visitors", "record_id": ["day", "id"], "enabled": False},
    },
}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with one table and one integration of a user's own."""
    written(tmp_path / "own/canonical/pets.json", PETS)
    written(tmp_path / "own/integrations/zoo.json", ZOO)
    return tmp_path / "own"


def written(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def animals(**changes: Any) -> dict[str, Any]:
    return ZOO | {"endpoints": {"animals": ZOO["endpoints"]["animals"] | changes}}


def test_list_tells_which_endpoint_feeds_which_table(avesa: Avesa, own: Path) -> None:
    told = avesa("mapping", "list", "--mappings", str(own), "--json")
    assert {"service": "zoo", "endpoint": "animals", "title": "", "table": "pets", "enabled": True} in told.records
    assert {"table": "pets", "scd": 2, "columns": 2, "fed_by": ["zoo.animals"]} in told.records


def test_list_is_a_table_for_a_person(avesa: Avesa) -> None:
    told = avesa("mapping", "list")
    assert told.code == 0
    assert "connectwise" in told.out
    assert not any(line.endswith(" ") for line in told.out.splitlines())


def test_show_of_a_service_names_the_variable_of_each_credential(avesa: Avesa, own: Path) -> None:
    told = avesa("mapping", "show", "zoo", "--mappings", str(own))
    assert told.out.startswith("zoo: City Zoo\n")
    assert "Token       ZOO_TOKEN  yes     Ask." in told.out
    assert "visitors  visitors  (raw only)  not read" in told.out


def test_show_of_a_service_tells_what_each_endpoint_needs_and_how_late_it_may_be(avesa: Avesa, own: Path) -> None:
    since = {"type": "time", "params": {"since": "{since}"}, "lag_s": 7_200}
    written(own / "integrations/zoo.json", animals(permission="Keeper: read", incremental=since))
    told = avesa("mapping", "show", "zoo", "--mappings", str(own)).out
    heads, line = [found for found in told.splitlines() if found.startswith(("ENDPOINT", "animals"))]
    assert line[heads.index("PERMISSION") :] == "Keeper: read"
    assert (line[heads.index("EVERY") :].split()[:2], line[heads.index("LAG") :].split()[:2]) == (
        ["1", "min"],
        ["2", "h"],
    )


def test_help_says_what_status_calls_promised(avesa: Avesa) -> None:
    told = " ".join(avesa("status", "--help").out.replace("│", " ").split())
    assert "PROMISED is how often an endpoint is read and how late its vendor may show a change" in told


def test_show_of_an_endpoint_tells_what_its_records_take_along(avesa: Avesa) -> None:
    told = avesa("mapping", "show", "zendesk", "--endpoint", "ticket_comments").out
    assert "below:       each record of tickets, whose ticket_id each takes along" in told


def test_show_of_an_endpoint_tells_where_each_column_comes_from(avesa: Avesa, own: Path) -> None:
    told = avesa("mapping", "show", "zoo", "--endpoint", "animals", "--mappings", str(own))
    assert "name    the first of nick, name" in told.out


def test_show_of_a_table_lists_its_columns_and_what_maps_them(avesa: Avesa, own: Path) -> None:
    told = avesa("mapping", "show", "pets", "--mappings", str(own))
    assert "fed by: zoo.animals" in told.out
    assert "name           string  yes      zoo.animals  What it answers to" in told.out


def test_show_of_a_table_is_the_file_for_a_machine(avesa: Avesa, own: Path) -> None:
    (record,) = avesa("mapping", "show", "pets", "--mappings", str(own), "--json").records
    assert record["columns"]["legs"] == {"type": "int64", "description": "", "tracked": True}


@pytest.mark.parametrize("words", [["zooo"], ["zoo", "--endpoint", "animal"]])
def test_what_is_not_there_is_compared_with_what_is(avesa: Avesa, own: Path, words: list[str]) -> None:
    told = avesa("mapping", "show", *words, "--mappings", str(own))
    assert (told.code, told.out) == (2, "")
    assert "Did you mean 'zoo'?" in told.err or "Did you mean 'animals'?" in told.err


# -- validate ---------------------------------------------------------------------------------------------------------
def test_the_shipped_files_have_no_problem(avesa: Avesa) -> None:
    told = avesa("mapping", "validate")
    assert (told.code, told.out) == (0, "")
    assert told.err.endswith("no problem\n")


def test_a_typo_is_told_with_file_path_and_what_was_meant(avesa: Avesa, own: Path) -> None:
    file = written(own / "integrations/zoo.json", animals(recordid="id"))
    told = avesa("mapping", "validate", "--mappings", str(own))
    assert told.code == 1
    assert told.out == (
        f"{file.relative_to(Path.cwd())} at $.endpoints.animals.recordid\n"
        "  there is no field 'recordid' here. Did you mean 'record_id'?\n"
    )
    assert told.err.startswith("1 problem in 1 of ")


def test_every_problem_of_every_file_is_told(avesa: Avesa, own: Path) -> None:
    fields = {"nmae": "name", "legs": {"type": "function", "name": "lowr", "paths": ["a"]}}
    written(own / "integrations/zoo.json", animals(canonical={"table": "pets", "fields": fields}))
    written(own / "integrations/circus.json", '{\n  "service": "circus",\n}')
    written(own / "canonical/pets.json", PETS | {"columns": {"name": {"type": "strng"}}, "table": "pests"})
    told = avesa("mapping", "validate", "--mappings", str(own), "--json")
    assert [(Path(problem["file"]).name, problem["at"]) for problem in told.records] == [
        ("pets.json", "$.columns.name.type"),
        ("circus.json", "line 3, column 1"),
    ]
    written(own / "canonical/pets.json", PETS)
    told = avesa("mapping", "validate", "--mappings", str(own), "--json")
    assert [problem["at"] for problem in told.records] == [
        "line 3, column 1",
        "$.endpoints.animals.canonical.fields.nmae",
    ]


def test_what_works_and_was_hardly_meant_is_told_to_whoever_writes_the_file(avesa: Avesa, own: Path) -> None:
    written(own / "canonical/pets.json", PETS | {"columns": PETS["columns"] | {"id": {"type": "string"}}})
    written(own / "integrations/zoo.json", ZOO | {"credentials": ZOO["credentials"] | {"gate": {"title": "Gate"}}})
    told = avesa("mapping", "validate", "--mappings", str(own), "--json")
    assert told.code == 1
    assert [(found["at"], found["what"]) for found in told.records] == [
        ("$.credentials.gate", "nothing uses this credential"),
        ("$.endpoints.animals.canonical.fields", "the column 'id' comes from nowhere"),
    ]


def test_what_the_mapper_would_refuse_is_told_too(avesa: Avesa, own: Path) -> None:
    fields = {
        "name": {"type": "function", "name": "lowr", "paths": ["a"]},
        "legs": {"type": "constant", "value": "four"},
    }
    written(own / "integrations/zoo.json", animals(canonical={"table": "pets", "fields": fields}))
    told = avesa("mapping", "validate", "--mappings", str(own), "--json")
    assert [problem["at"].rpartition(".")[2] for problem in told.records] == ["name", "legs"]


def test_a_broken_table_is_told_once_and_not_by_all_that_feed_it(avesa: Avesa, own: Path) -> None:
    written(own / "canonical/pets.json", "{")
    told = avesa("mapping", "validate", "--mappings", str(own), "--json")
    assert [problem["file"].rpartition("/")[2] for problem in told.records] == ["pets.json"]


def test_a_file_must_be_named_after_what_it_describes(avesa: Avesa, own: Path) -> None:
    (own / "integrations/zoo.json").rename(own / "integrations/park.json")
    (problem,) = avesa("mapping", "validate", "--mappings", str(own), "--json").records
    assert (problem["at"], problem["remedy"]) == ("$.service", "Name it zoo.json.")


def test_a_single_file_is_checked_beside_all_others(avesa: Avesa, tmp_path: Path) -> None:
    fields = {"summary": "text", "sumary": "text"}
    file = written(tmp_path / "zoo.json", animals(canonical={"table": "tickets", "fields": fields}))
    told = avesa("mapping", "validate", str(file), "--json")
    assert told.code == 1
    assert [(problem["at"], problem["remedy"]) for problem in told.records] == [
        ("$.endpoints.animals.canonical.fields.sumary", "Did you mean 'summary'?")
    ]
    assert told.err == "1 problem in 1 of 1 file\n"


def test_a_single_file_that_describes_a_table_is_known_by_what_it_holds(avesa: Avesa, tmp_path: Path) -> None:
    told = avesa("mapping", "validate", str(written(tmp_path / "pets.json", PETS)))
    assert (told.code, told.err) == (0, "1 file, no problem\n")


@pytest.mark.parametrize("words", [["nothing.json"], ["--mappings", "nowhere"]])
def test_what_cannot_be_read_is_a_mistake_of_usage(avesa: Avesa, words: list[str]) -> None:
    told = avesa("mapping", "validate", *words)
    assert (told.code, told.out) == (2, "")
    assert words[-1] in told.err


# -- schema -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "holder"), [("integration", "Integration"), ("canonical", "CanonicalTable")])
def test_the_schema_is_made_from_the_types(avesa: Avesa, kind: str, holder: str) -> None:
    schema = msgspec.json.decode(avesa("mapping", "schema", kind).out)
    assert schema["$ref"] == f"#/$defs/{holder}"
    assert schema["$defs"][holder]["additionalProperties"] is False


def test_a_file_may_name_its_schema(avesa: Avesa, tmp_path: Path) -> None:
    file = written(tmp_path / "pets.json", {"$schema": "./canonical.schema.json"} | PETS)
    assert avesa("mapping", "validate", str(file)).code == 0


def test_a_schema_nobody_knows_is_refused(avesa: Avesa) -> None:
    told = avesa("mapping", "schema", "table")
    assert (told.code, told.err) == (2, "error: there is no schema 'table'\n  remedy: Known: integration, canonical.\n")


# -- new --------------------------------------------------------------------------------------------------------------
def test_a_new_integration_validates_as_it_is_written(avesa: Avesa, tmp_path: Path) -> None:
    told = avesa("mapping", "new", "harbor", "--mappings", str(tmp_path / "own"), "--json")
    names = [Path(record["file"]).relative_to(tmp_path).as_posix() for record in told.records]
    assert names == ["own/integrations/harbor.json", "own/schema/integration.json", "own/schema/canonical.json"]
    assert avesa("mapping", "validate", "--mappings", str(tmp_path / "own")).code == 0
    assert "harbor" in avesa("mapping", "list", "--mappings", str(tmp_path / "own")).out


def test_a_new_integration_takes_no_existing_ones_place(avesa: Avesa, tmp_path: Path) -> None:
    assert avesa("mapping", "new", "harbor").code == 0
    before = Path("mappings/integrations/harbor.json").read_bytes()
    for service in ("harbor", "connectwise"):
        told = avesa("mapping", "new", service)
        assert told.code == 2
        assert f"there is an integration '{service}' already" in told.err
    assert Path("mappings/integrations/harbor.json").read_bytes() == before


@pytest.mark.parametrize("name", ["Harbor", "my-desk", "../desk", "4desk"])
def test_a_new_integration_has_a_name_that_can_be_one(avesa: Avesa, name: str) -> None:
    told = avesa("mapping", "new", name)
    assert (told.code, list(Path().iterdir())) == (2, [])
    assert "is no name for a service" in told.err


# -- show, the engine's grammar ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "full reads"),
        ({"incremental": {"type": "time", "params": {"since": "{since}"}}}, "since a time"),
        ({"incremental": {"type": "time", "newest_first": True}, "updated_at": "at"}, "newest first, down to the last"),
        ({"incremental": {"type": "delta", "path": "t", "param": "t"}}, "by delta token"),
        (
            {"incremental": {"type": "id"}, "pagination": {"type": "keyset", "key": "id", "param": "after"}},
            "above the highest id",
        ),
        ({"deleted_when": {"path": "state", "equals": ["gone"]}}, "where state is gone"),
        ({"deletes": {"type": "sweep", "interval_s": 86400}}, "sweep every 1 d"),
        ({"tombstones": [{"endpoint": "animals", "record_id": "id"}]}, "told by animals"),
        ({"permission": "Animals: read"}, "Animals: read"),
    ],
)
def test_show_of_an_endpoint_says_how_changes_and_deletes_are_seen(
    avesa: Avesa, own: Path, changes: dict[str, Any], words: str
) -> None:
    written(own / "integrations/zoo.json", animals(**changes))
    assert words in avesa("mapping", "show", "zoo", "--endpoint", "animals", "--mappings", str(own)).out


# -- conform ----------------------------------------------------------------------------------------------------------
DESCRIPTION: dict[str, Any] = {
    "openapi": "3.0.0",
    "paths": {
        "/animals": {
            "get": {
                "responses": {
                    "200": {
                        "content": {
                            "application/json": {
                                "schema": {
                                    "type": "array",
                                    "items": {"type": "object", "properties": {"id": {"type": "integer"}, "nick": {}}},
                                }
                            }
                        }
                    }
                }
            }
        }
    },
}


def conformed(avesa: Avesa, own: Path, *words: str) -> Any:
    return avesa("mapping", "conform", "zoo", "--mappings", str(own), *words)


def test_conform_fails_where_the_description_contradicts(avesa: Avesa, own: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "zoo.json", DESCRIPTION)
    told = conformed(avesa, own, "--openapi", str(file))
    assert told.code == 1
    assert "contradicted  animals: field.name  there is no 'name' here." in told.out
    assert "4 facts confirmed, 1 contradicted, 0 contradicted and explained: 80.0% of what is described" in told.out


def test_conform_holds_where_the_file_explains_the_contradiction(avesa: Avesa, own: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "zoo.json", DESCRIPTION)
    differs = {"field.name": "names came in May: https://zoo.example/changes"}
    written(own / "integrations/zoo.json", animals(described={"differs": differs}))
    told = conformed(avesa, own, "--openapi", str(file))
    assert told.code == 0
    assert "explained  animals: field.name  names came in May: https://zoo.example/changes" in told.out


def test_a_third_partys_description_is_reported_and_not_counted(avesa: Avesa, own: Path, tmp_path: Path) -> None:
    written(tmp_path / "zoo.json", DESCRIPTION)
    written(tmp_path / "SOURCES.md", "| service | class |\n|---|---|\n| zoo | A | x |\n| zoo | D | y |\n")
    told = conformed(avesa, own, "--openapi", str(tmp_path))
    assert told.code == 0
    assert told.out.startswith("zoo beside zoo.json, class D: reported, not counted\n")
    assert "contradicted  animals: field.name" in told.out


@pytest.mark.parametrize("typed", [True, False])
def test_a_description_that_is_not_there_is_not_checked(
    avesa: Avesa, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "specs"
    folder.mkdir()
    told = conformed(avesa, own, *(["--openapi", str(folder)] if typed else []))
    assert told.code == 0
    assert "NOT CHECKED" in told.out
    assert told.err == f"NOT CHECKED: zoo (no description at {folder if typed else 'openapi'})\n"


def test_a_path_of_descriptions_that_does_not_exist_is_a_mistake_of_usage(avesa: Avesa, own: Path) -> None:
    told = conformed(avesa, own, "--openapi", "opneapi.json")
    assert (told.code, told.out) == (2, "")
    assert "the path 'opneapi.json' does not exist\n  where: --openapi" in told.err


def test_the_file_may_name_its_description(avesa: Avesa, own: Path, tmp_path: Path) -> None:
    written(tmp_path / "zoo_v2.json", DESCRIPTION)
    written(own / "integrations/zoo.json", animals() | {"described_by": "https://zoo.example (zoo_v2.json)"})
    assert "zoo beside zoo_v2.json" in conformed(avesa, own, "--openapi", str(tmp_path)).out


def test_every_fact_is_a_line_for_a_machine(avesa: Avesa, own: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "zoo.json", DESCRIPTION)
    *facts, last = conformed(avesa, own, "--openapi", str(file), "--json", "--all").records
    assert {"service": "zoo", "endpoint": "animals", "fact": "record_id", "verdict": "confirmed", "says": ""} in facts
    assert (last["confirmed"], last["contradicted"], last["not_described"]) == (4, 1, 3)


@pytest.mark.parametrize("text", ["{", "[]", '{"info": {}}'])
def test_what_is_no_description_is_a_mistake_of_usage(avesa: Avesa, own: Path, tmp_path: Path, text: str) -> None:
    told = conformed(avesa, own, "--openapi", str(written(tmp_path / "zoo.json", text)))
    assert (told.code, told.out) == (2, "")
    assert "this is no OpenAPI description" in told.err


def test_validate_says_of_a_folder_without_mapping_files_where_they_belong(avesa: Avesa, tmp_path: Path) -> None:
    (tmp_path / "harbor.json").write_text("{}")
    told = avesa("mapping", "validate", "--mappings", str(tmp_path))
    assert (told.code, "neither a folder canonical/ nor integrations/" in told.err) == (2, True)
    told = avesa("mapping", "validate", "--mappings", str(tmp_path / "none"))
    assert (told.code, "remedy: --mappings takes a folder" in told.err) == (2, True)
