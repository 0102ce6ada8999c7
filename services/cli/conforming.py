"""`avesa mapping conform`: integrations beside the descriptions that vendors publish of their APIs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from services.cli.screen import Screen, counted
from services.cli.spelling import service_meant
from services.contracts.conformance import Fact, Tally, conform, tally
from services.contracts.errors import UsageError
from services.contracts.integration import Integration
from services.contracts.mapping_files import check_against, decode_integration, decode_table
from services.contracts.openapi import Description
from services.contracts.schema import CanonicalTable
from services.runtime.mapping_files import files_in_force, load_mappings

COUNTED_CLASSES = "AB"  # what vendors published themselves; C and D are rebuilt or a third party's: a hint, no evidence
_SOURCES = "SOURCES.md"
DESCRIPTIONS: Final = Path("openapi")  # where nobody says where they are


class Compared(msgspec.Struct, frozen=True):
    """One integration beside its description. `grade` is the class SOURCES.md gives the description, if any."""

    service: str
    file: str
    grade: str
    facts: list[Fact]

    @property
    def counts(self) -> bool:
        """Whether the description is evidence: that of an unknown class is, else only the vendor's own."""
        return not self.grade or self.grade in COUNTED_CLASSES

    @property
    def tally(self) -> Tally:
        return tally(self.facts)

    @property
    def described(self) -> str:
        """How many of the endpoints are in the description."""
        there = sum(fact.fact == "path" and fact.verdict == "confirmed" for fact in self.facts)
        return f"{there} of {len({fact.endpoint for fact in self.facts})}"

    @property
    def holds(self) -> bool:
        return not self.counts or (self.tally.contradicted == 0 and self.tally.needless == 0)


def integrations_of(own: Path | None, service: str | None) -> tuple[dict[str, CanonicalTable], list[Integration]]:
    """The canonical tables, and one service's integration or all. With one, what is wrong with others is no concern.

    Errors: UsageError for a service that is not there; MappingError.
    """
    if service is None:
        files = load_mappings(own)
        return files.tables, list(files.integrations.values())
    there = {file.stem: file for file in files_in_force("integrations", own)}
    file = there[service_meant(service, there).partition(":")[0]]
    read = [decode_table(each.read_bytes(), str(each)) for each in files_in_force("canonical", own)]
    tables = {table.table: table for table in read}
    integration = decode_integration(file.read_bytes(), str(file))
    check_against(integration, tables, str(file))
    return tables, [integration]


def descriptions_at(typed: Path | None) -> Path:
    """The file or folder of descriptions. Errors: UsageError for a typed one that is not there."""
    if typed is not None and not typed.exists():
        remedy = "Look at the spelling: nothing was compared."
        raise UsageError(f"the path {str(typed)!r} does not exist", where="--openapi", remedy=remedy)
    return typed if typed is not None else DESCRIPTIONS


def compare(integration: Integration, tables: Mapping[str, CanonicalTable], openapi: Path) -> Compared | None:
    """One integration beside its description, which `openapi` is or holds; None where it is not there.

    Errors: UsageError for a file that is no description.
    """
    file = openapi / description_name(integration) if openapi.is_dir() else openapi
    if not file.is_file():
        return None
    try:
        description = Description(msgspec.json.decode(file.read_bytes()))
    except (ValueError, OSError) as err:
        raise UsageError(f"this is no OpenAPI description: {err}", where=str(file)) from err
    facts = conform(integration, description, tables)
    return Compared(integration.service, file.name, _grades(file.parent).get(file.stem, ""), facts)


def description_name(integration: Integration) -> str:
    """The description's file: the one `described_by` names, else that of the service's name."""
    named = re.search(r"[\w.-]+\.json\b", integration.described_by)
    return named.group() if named is not None else f"{integration.service}.json"


def _grades(folder: Path) -> Mapping[str, str]:
    """What SOURCES.md says of each description; of one made from several sources the worst class."""
    sources = folder / _SOURCES
    if not sources.is_file():
        return {}
    rows = re.findall(r"^\| *(\w+)[^|]*\| *([A-D]) *\|", sources.read_text("utf-8"), re.MULTILINE)
    return dict(sorted(rows, key=lambda row: row[1]))


def show_compared(screen: Screen, compared: Compared, *, every: bool) -> None:
    """A line for each endpoint, then what is contradicted; with `every` each fact."""
    if screen.as_json:
        for fact in compared.facts:
            if every or fact.verdict in ("contradicted", "needless"):
                screen.record({"service": compared.service} | msgspec.to_builtins(fact))
        return
    grade = f", class {compared.grade}" if compared.grade else ""
    screen.say(
        f"{compared.service} beside {compared.file}{grade}{'' if compared.counts else ': reported, not counted'}"
    )
    by_endpoint: dict[str, list[Fact]] = {}
    for fact in compared.facts:
        by_endpoint.setdefault(fact.endpoint, []).append(fact)
    screen.show(
        [(name, tally(facts)) for name, facts in by_endpoint.items()],
        {
            "ENDPOINT": lambda row: row[0],
            "CONFIRMED": lambda row: row[1].confirmed,
            "CONTRADICTED": lambda row: row[1].contradicted,
            "EXPLAINED": lambda row: row[1].explained,
            "NOT DESCRIBED": lambda row: row[1].not_described,
        },
    )
    shown = compared.facts if every else [*_alike(compared.facts)]
    if shown:
        screen.say()
        screen.show(
            shown,
            {
                "VERDICT": lambda fact: fact.verdict,
                "FACT": lambda fact: f"{fact.endpoint}: {fact.fact}",
                "DESCRIPTION": lambda fact: fact.says,
            },
        )
    screen.say()


def _alike(facts: Sequence[Fact]) -> Iterator[Fact]:
    """What is to be looked at; facts of an endpoint that are explained by the same words are one line."""
    explained: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        if fact.verdict in ("contradicted", "needless"):
            yield fact
        elif fact.verdict == "explained":
            explained.setdefault((fact.endpoint, fact.says), []).append(fact)
    for first, *others in explained.values():
        more = f" and {len(others)} more" if others else ""
        yield msgspec.structs.replace(first, fact=f"{first.fact}{more}")


def show_sum(screen: Screen, all_compared: list[Compared], missing: list[tuple[str, str]]) -> None:
    """A line for each service and the sum of those that count."""
    found: list[tuple[str, str, Compared | None]] = [(each.service, each.file, each) for each in all_compared]
    found += [(service, file, None) for service, file in missing]
    if screen.as_json:
        for service, file, each in found:
            judged = msgspec.to_builtins(each.tally) if each is not None else {"checked": False}
            screen.record({"service": service, "description": file} | judged)
        return
    screen.show(
        found,
        {
            "SERVICE": lambda row: row[0],
            "DESCRIPTION": lambda row: row[1],
            "CLASS": lambda row: row[2].grade if row[2] else "",
            "ENDPOINTS": lambda row: row[2].described if row[2] else "NOT CHECKED",
            "CONFIRMED": lambda row: row[2].tally.confirmed if row[2] else "",
            "CONTRADICTED": lambda row: row[2].tally.contradicted if row[2] else "",
            "EXPLAINED": lambda row: row[2].tally.explained if row[2] else "",
            "NOT DESCRIBED": lambda row: row[2].tally.not_described if row[2] else "",
            "SHARE": lambda row: f"{row[2].tally.share:.1%}" if row[2] else "",
        },
    )
    total = tally(fact for each in all_compared if each.counts for fact in each.facts)
    if any(each.counts for each in all_compared):
        screen.say(
            f"\n{counted(total.confirmed, 'fact')} confirmed, {total.contradicted} contradicted, {total.explained} "
            f"contradicted and explained: {total.share:.1%} of what is described (classes C and D not counted)"
        )
