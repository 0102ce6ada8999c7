"""What the sandbox serves, checked against the vendor's own description: engine and sandbox cannot share a mistake.

The description is not part of the project. It is looked for in the folder that AVESA_VENDOR_SPECS names, else in
`../shared/vendors/specs` beside the repository; where it is missing these tests are skipped.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.sandbox.recipes import RECIPES
from tests.sandbox.visitor import Clock, small_world

# Missing in the copy, which is cut to a part of the vendor's file.
NOT_DESCRIBED = {"company/configurations", "expense/entries", "project/tickets/{id}/notes"}
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
INT32_MAX = 2**31 - 1


def specification_path() -> Path:
    folder = os.environ.get("AVESA_VENDOR_SPECS")  # noqa: TID251 where the description lies is no setting of ours
    beside = Path(__file__).parents[3] / "shared" / "vendors" / "specs"
    return (Path(folder) if folder else beside) / "connectwise_psa.json"


@cache
def specification() -> dict[str, Any]:
    path = specification_path()
    if not path.exists():
        pytest.skip(f"the vendor's description is not at {path} (set AVESA_VENDOR_SPECS to its folder)")
    description: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    return description


def schema_of(path: str) -> dict[str, Any]:
    """The schema of one record of the list at `path`."""
    answer = specification()["paths"]["/" + path.replace("{id}", "{parentId}")]["get"]["responses"]["200"]
    schema: dict[str, Any] = answer["content"]["application/json"]["schema"]["items"]
    return schema


def differences(value: Any, schema: dict[str, Any], at: str) -> list[str]:
    """Where a value is not what the schema says: unknown names, wrong types, values outside an enum.

    The description marks null only on numbers, flags and enums. For texts and references the vendor answers null too
    (recorded answers in the public client KerkhoffTechnologies/django-connectwise), so there it is allowed.
    """
    if value is None:
        free = schema.get("type") == "object" or (schema.get("type") == "string" and "enum" not in schema)
        return [] if schema.get("nullable") or free or "$ref" in schema else [f"{at} is null"]
    if "$ref" in schema:
        schema = specification()["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    if schema.get("type") == "object":
        return object_differences(value, schema, at)
    if schema.get("type") == "array" and isinstance(value, list):
        return [found for item in value for found in differences(item, schema["items"], f"{at}[]")]
    return [] if fits(value, schema) else [f"{at} is {value!r}, not {schema.get('format') or schema.get('type')}"]


def object_differences(value: Any, schema: dict[str, Any], at: str) -> list[str]:
    if not {"properties", "additionalProperties"} & schema.keys():
        return []  # `value` of a custom field: anything
    if not isinstance(value, dict):
        return [f"{at} is no object"]
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    found = []
    for name, inner in value.items():
        if name in properties or others:
            found += differences(inner, properties.get(name, others), f"{at}.{name}")
        else:
            found.append(f"{at}.{name} is not in the description")
    return found


def fits(value: Any, schema: dict[str, Any]) -> bool:
    if "enum" in schema and value not in schema["enum"]:
        return False
    match schema.get("type"):
        case "string":
            dated = schema.get("format") != "date-time" or DATE_TIME.fullmatch(str(value)) is not None
            return isinstance(value, str) and dated and len(value) <= length_max(schema)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INT32_MAX
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case _:
            return False


def length_max(schema: dict[str, Any]) -> int:
    """The limit that the description gives in prose: ` Max length: 100;`."""
    found = re.search(r"Max length: (\d+)", schema.get("description", ""))
    return int(found.group(1)) if found else 10**9


@pytest.mark.parametrize("path", [recipe.path for recipe in RECIPES if recipe.path not in NOT_DESCRIBED])
def test_every_field_served_is_described_by_the_vendor(path: str) -> None:
    schema = schema_of(path)
    world = small_world(Clock(), **{path: 40})
    world.change("acme", 300)
    found = {
        difference
        for raw in world.current("acme", path).values()
        for difference in differences(msgspec.json.decode(raw), schema, path)
    }
    assert not found


@pytest.mark.parametrize("path", [recipe.path for recipe in RECIPES if recipe.path not in NOT_DESCRIBED])
def test_every_field_the_vendor_requires_is_served(path: str) -> None:
    required = specification()["components"]["schemas"][schema_of(path)["$ref"].rsplit("/", 1)[1]].get("required", [])
    recipe = next(recipe for recipe in RECIPES if recipe.path == path)
    assert set(required) <= recipe.fields.keys()
    assert all(recipe.fields[name].absent == 0 for name in required)


def test_what_is_not_described_is_still_not_described() -> None:
    assert not {f"/{path}" for path in NOT_DESCRIBED} & specification()["paths"].keys()


def test_the_check_itself_notices_a_wrong_name_and_a_wrong_type() -> None:
    schema = schema_of("service/tickets")
    assert differences({"id": "1", "colour": "red"}, schema, "ticket") == [
        "ticket.id is '1', not int32",
        "ticket.colour is not in the description",
    ]
