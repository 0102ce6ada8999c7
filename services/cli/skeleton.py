"""`avesa mapping new`: an integration to start from. It validates as it is, and its titles say what belongs where."""

from pathlib import Path
from typing import Any

import msgspec

from services.contracts.errors import UsageError
from services.contracts.integration import Integration
from services.contracts.mapping_files import json_schema
from services.contracts.schema import CanonicalTable
from services.runtime.mapping_files import files_in_force


def write_skeleton(service: str, folder: Path) -> list[Path]:
    """The integration, and the two schemas an editor completes and checks by where there are none. What was written.

    Errors: UsageError for a service that has a file already, ours or the folder's own.
    """
    file = folder / "integrations" / f"{service}.json"
    there = [known for known in files_in_force("integrations", folder) if known.stem == service]
    if there:
        raise UsageError(
            f"there is an integration {service!r} already", where=str(there[0]), remedy="Copy it, or choose a name."
        )
    schemas = {"integration": json_schema(Integration), "canonical": json_schema(CanonicalTable)}
    made: dict[Path, Any] = {file: skeleton(service)}
    made |= {folder / "schema" / f"{kind}.json": schema for kind, schema in schemas.items()}
    written = []
    for place, content in made.items():
        if place == file or not place.exists():
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
            except OSError as err:
                raise UsageError(f"this file cannot be written ({err.strerror})", where=str(place)) from err
            written.append(place)
    return written


def skeleton(service: str) -> dict[str, Any]:
    """An integration of the plainest kind: a key, numbered pages, a filter by time, one list."""
    return {
        "$schema": "../schema/integration.json",
        "service": service,
        "title": "What people call the product",
        "described_by": "Where the vendor documents the API, and the name of its OpenAPI file (openapi.json)",
        "base_url": "{api_url}",
        "credentials": {
            "api_url": {
                "title": "API address",
                "hint": "Where a user finds it, and an example: https://api.example.com/v1",
            },
            "api_key": {
                "title": "API key",
                "hint": "The clicks that lead to it: Settings > API > New key. It is shown once.",
                "secret": True,
            },
        },
        "auth": {"type": "bearer", "token": "{api_key}"},
        "limits": {"requests": 100, "window_s": 60, "share": 0.6, "concurrency": 2},
        "errors": [],
        "pagination": {"type": "page", "param": "page", "size_param": "per_page", "size": 100},
        "endpoints": {
            "tickets": {
                "title": "One endpoint is one list of the API. Its records become rows of a table: avesa mapping list",
                "path": "tickets",
                "records": "",
                "record_id": "id",
                "updated_at": "updated_at",
                "interval_s": 60,
                "incremental": {
                    "type": "time",
                    "params": {"updated_since": "{since}"},
                    "format": "rfc3339_s",
                    "overlap_s": 60,
                    "lag_s": 300,
                },
                "deletes": {"type": "sweep", "interval_s": 86_400, "confirm": "tickets/{record_id}"},
                "permission": "What the key must be allowed to do, in the vendor's words",
                "canonical": {
                    "table": "tickets",
                    "fields": {
                        "id": "id",
                        "summary": "subject",
                        "status": "status.name",
                        "created_date": "created_at",
                        "last_updated": "updated_at",
                    },
                },
            }
        },
    }
