"""Whatever a page names is there: links, files, targets of make, commands and their options, variables and outputs of
Terraform, settings. What it says about them nobody can test."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import pytest
import typer

from services.cli.cost_model import MERGE_GETS, MERGE_PUTS
from services.cli.main import GROUPS
from services.runtime.settings import Settings

ROOT: Final = Path(__file__).parents[2]
TERRAFORM: Final = ROOT / "infra" / "terraform"
PAGES: Final = sorted([ROOT / "README.md", TERRAFORM / "README.md", *(ROOT / "docs").glob("*.md")])
# Pages about the platform name its variables and outputs; the others have words of their own in the same shape.
PLATFORM: Final = sorted(
    ROOT / "docs" / f"{name}.md"
    for name in (
        "deployment", "verification", "development", "production", "two-accounts", "credentials-and-oidc",
        "manual-deployment", "upgrade", "teardown", "security", "cost",
    )
)  # fmt: skip
FOLDERS: Final = ("services/", "infra/", "docs/", "tests/", "mappings/", ".github/", ".ci/", "modules/", "platform/")
OF_TOOLS: Final = frozenset({"AWS_PROFILE"})  # the AWS CLI's and boto3's own

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
about_the_platform = pytest.mark.parametrize("page", PLATFORM, ids=lambda page: page.name)


# -- reading a page ---------------------------------------------------------------------------------------------------
def blocks(text: str) -> list[tuple[str, str]]:
    """Fenced blocks as (language, text)."""
    return re.findall(r"^[ ]*```(\w*)[^\n]*\n(.*?)^[ ]*```", text, re.DOTALL | re.MULTILINE)


def prose(text: str) -> str:
    return re.sub(r"^[ ]*```.*?^[ ]*```", "", text, flags=re.DOTALL | re.MULTILINE)


def spans(text: str) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(text))


def lines(text: str) -> Iterator[str]:
    """Whatever a reader may type: lines of blocks that are no other language's, and spans."""
    for language, block in blocks(text):
        if language in ("", "console", "sh", "bash"):
            yield from (line.removeprefix("$ ").strip() for line in block.replace("\\\n", " ").splitlines())
    yield from spans(text)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- links and files --------------------------------------------------------------------------------------------------
@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pages
def test_every_file_named_is_there(page: Path) -> None:
    for span in spans(page.read_text()):
        if not span.startswith(FOLDERS) or re.search(r"[{}*$ ]|\.\.\.", span):
            continue
        path = span.partition("::")[0]
        assert (ROOT / path).exists() or (TERRAFORM / path).exists(), span


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "README.md").read_text()))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}


# -- make -------------------------------------------------------------------------------------------------------------
@pages
def test_every_target_of_make_is_there_and_takes_what_it_is_given(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    for line in lines(page.read_text()):
        for told in re.findall(r"(?:^|&& )make((?: +[\w-]+(?:=\S*)?)*)", line.partition("#")[0]):
            for word in told.split():
                name, given, _ = word.partition("=")
                assert f"$({name})" in makefile if given else name in targets, line


# -- avesa ------------------------------------------------------------------------------------------------------------
@cache
def commands() -> Any:
    """The group of all commands, as typer's own click has it."""
    app = typer.Typer()
    app.callback()(lambda: None)
    for group, word in GROUPS:
        app.add_typer(group, name=word)
    return typer.main.get_command(app)


@cache
def awaited() -> frozenset[str]:
    """Commands that the changelog says are not there yet: a page may say so too."""
    _, _, missing = (ROOT / "CHANGELOG.md").read_text().partition("### Not there yet")
    return frozenset(re.findall(r"`([a-z-]+)`", missing.partition("\n#")[0]))


def unknown_in(line: str) -> str | None:
    """What of a command line `avesa ...` there is not; None where all is."""
    words = shlex.split(line, comments=True)
    if words[1] in awaited() - set(commands().commands):
        return None
    at = commands()
    for word in words[1:]:
        if hasattr(at, "commands") and not word.startswith("-"):
            if word not in at.commands:
                return word
            at = at.commands[word]
    known = {name for parameter in at.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    return next((word for word in words if word.startswith("--") and word.partition("=")[0] not in known), None)


@pages
def test_every_command_is_there_with_every_option(page: Path) -> None:
    for line in lines(page.read_text()):
        match = re.match(r"(?:\S+=\S* )*(?:source \S+; )?(?:\.venv/bin/)?(avesa [a-z].*)", line)
        if match is None:
            continue
        for command in re.split(r" && | \|\| | \| | > | &$", match[1]):
            if command.startswith("avesa "):
                assert unknown_in(command) is None, line


def test_what_is_not_there_is_found() -> None:
    assert unknown_in("avesa status --watch") is None
    assert unknown_in("avesa services pause --tenant-id acme --service connectwise") is None
    assert unknown_in("avesa statsu") == "statsu"
    assert unknown_in("avesa status --wacth") == "--wacth"
    assert unknown_in("avesa services stop") == "stop"


# -- Terraform and settings -------------------------------------------------------------------------------------------
@cache
def declared(kind: str, root: str) -> frozenset[str]:
    """Names of variables or outputs of `platform` or `bootstrap`."""
    text = "".join(file.read_text() for file in sorted((TERRAFORM / root).glob("*.tf")))
    return frozenset(re.findall(rf'^{kind} "(\w+)"', text, re.MULTILINE))


@about_the_platform
def test_every_output_and_variable_on_a_command_line_is_declared(page: Path) -> None:
    outputs = declared("output", "platform") | declared("output", "bootstrap")
    variables = declared("variable", "platform") | declared("variable", "bootstrap")
    for line in lines(page.read_text()):
        if "terraform " not in line and "-var" not in line:
            continue
        assert set(re.findall(r"output (?:-raw |-json )?([a-z]\w+)", line)) <= outputs, line
        assert set(re.findall(r"-var '?\"?(\w+)=", line)) <= variables, line


@about_the_platform
def test_data_of_an_environment_sets_variables_that_there_are(page: Path) -> None:
    for language, block in blocks(page.read_text()):
        if language == "hcl":
            assert set(re.findall(r"^(\w+) += ", dedent(block), re.MULTILINE)) <= declared("variable", "platform"), (
                block
            )


@cache
def words_of_the_code() -> frozenset[str]:
    folders = (("infra", "*.tf"), ("infra", "*.tfvars"), ("services", "*.py"), ("mappings", "*.json"))
    files = [file for folder, kind in folders for file in (ROOT / folder).rglob(kind) if ".terraform" not in str(file)]
    files += [*(ROOT / ".github" / "workflows").iterdir(), *(ROOT / "infra" / "bin").iterdir()]
    tests = frozenset(file.stem for file in (ROOT / "tests").rglob("*.py"))
    return tests | frozenset(word for file in files for word in re.findall(r"\w+", file.read_text()))


@about_the_platform
def test_every_name_with_an_underscore_is_one_of_the_code(page: Path) -> None:
    for span in spans(re.sub(r"^\| version 6 .*?\n\n", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)):
        for word in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", "" if "::" in span else span):
            assert word in words_of_the_code(), span


@about_the_platform
def test_every_setting_is_one(page: Path) -> None:
    known = {f"AVESA_{field.upper()}" for field in Settings.__struct_fields__}
    for word in re.findall(r"\bAVESA_[A-Z_]+\b|\bTF_VAR_\w+\b|\bAWS_[A-Z]+\b(?!_)", page.read_text()):
        if word.startswith("TF_VAR_"):
            assert word.removeprefix("TF_VAR_") in declared("variable", "platform"), word
        elif word not in known | OF_TOOLS:
            assert word in words_of_the_code(), word


def test_nothing_is_used_that_version_6_of_the_provider_has_taken_away() -> None:
    """docs/upgrade.md lists it: arguments by resource, as the upgrade guide has them."""
    text = "".join(file.read_text() for file in TERRAFORM.rglob("*.tf") if ".terraform" not in file.parts)
    kinds = "aws_eip|aws_flow_log|aws_ecs_task_definition"
    found = re.findall(rf'^resource "({kinds})" "\w+" (\{{.*?^\}})', text, re.DOTALL | re.MULTILINE)
    bodies: dict[str, str] = dict(found)
    assert len(bodies) == 3
    assert not re.search(r"^\s*vpc\s*=", bodies["aws_eip"], re.MULTILINE)
    assert not re.search(r"^\s*log_group_name\s*=", bodies["aws_flow_log"], re.MULTILINE)
    assert "inference_accelerator" not in bodies["aws_ecs_task_definition"]
    assert 'data "aws_region"' not in text
    assert not re.search(r"^\s*(opsworks|simpledb|sdb|worklink)\s*=", text, re.MULTILINE)


def test_what_a_merge_asks_for_is_said_as_the_model_has_it() -> None:
    page = (ROOT / "docs" / "cost.md").read_text()
    assert f"a merge is {MERGE_PUTS:g} writing and {MERGE_GETS:g} reading requests" in page
