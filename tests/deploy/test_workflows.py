"""The workflows of .github: whom they trust, what they may, and that all they name is there."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.cli.main import GROUPS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TERRAFORM = ROOT / "infra" / "terraform"
SECRETS = {"AVESA_PLAN_KEY", "AVESA_WEBHOOK_URL"}
Step = dict[str, Any]


def decoded(file: Path) -> dict[Any, Any]:
    workflow: dict[Any, Any] = yaml.safe_load(file.read_text())
    return workflow


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in FILES:
        for name, job in decoded(file)["jobs"].items():
            yield f"{file.stem}/{name}", job


def steps() -> Iterator[tuple[str, Step]]:
    for name, job in jobs():
        for number, step in enumerate(job.get("steps", []), start=1):
            yield f"{name}/{step.get('name') or step.get('id') or number}", step


def scripts() -> Iterator[tuple[str, str]]:
    yield from ((name, step["run"]) for name, step in steps() if "run" in step)
    yield from ((path.name, path.read_text()) for path in sorted((ROOT / "infra" / "bin").iterdir()))


def named(kind: str, folder: Path) -> set[str]:
    """The blocks of one kind that a folder of Terraform files declares."""
    text = "".join(path.read_text() for path in sorted(folder.glob("*.tf")))
    return set(re.findall(rf'^{kind} "(\w+)"', text, re.MULTILINE))


def found(pattern: str, text: str) -> set[str]:
    """Every word that a group of the pattern holds somewhere."""
    return {word for match in re.finditer(pattern, text, re.MULTILINE) for word in match.groups() if word}


# -- whom they trust, what they may -----------------------------------------------------------------------------------
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_workflow_may_nothing_and_each_job_says_what_it_needs(file: Path) -> None:
    workflow = decoded(file)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert set(job["permissions"].items()) <= {("contents", "read"), ("id-token", "write")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_job_runs_for_ever_and_no_two_deployments_of_an_environment_at_once(file: Path) -> None:
    workflow = decoded(file)
    assert all("timeout-minutes" in job or "uses" in job for job in workflow["jobs"].values())
    assert "concurrency" in workflow or any("uses" in job for job in workflow["jobs"].values())
    if file.stem == "deploy":
        assert workflow["concurrency"] == {"group": "deploy-${{ inputs.environment }}", "cancel-in-progress": False}


def test_every_action_is_pinned_by_its_commit_and_says_which_version_that_is() -> None:
    for file in FILES:
        for used in re.findall(r"^\s*-? *uses: (.*)$", file.read_text(), re.MULTILINE):
            assert re.fullmatch(r"\./.*\.yml|[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), (file.name, used)


def test_no_key_of_aws_is_stored_and_no_secret_but_two_is_read() -> None:
    for file in FILES:
        text = file.read_text()
        assert not re.search(r"aws[-_](access|secret)[-_]", text, re.IGNORECASE), file.name
        assert set(re.findall(r"secrets\.(\w+)", text)) <= SECRETS, file.name


def test_no_checkout_leaves_its_token_behind() -> None:
    checkouts = [step for _, step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_what_somebody_typed_or_named_is_never_part_of_a_script() -> None:
    for name, step in steps():
        assert "${{" not in step.get("run", ""), name


def test_a_request_from_a_fork_plans_nothing() -> None:
    (job,) = (job for name, job in jobs() if name == "plan/plan")
    assert job["if"] == "github.event.pull_request.head.repo.full_name == github.repository"


# -- a deployment -----------------------------------------------------------------------------------------------------
def test_only_what_was_approved_is_applied() -> None:
    every = dict(jobs())
    assert [name for name, job in every.items() if "environment" in job] == ["deploy/apply"]
    apply = "\n".join(step.get("run", "") for step in every["deploy/apply"]["steps"])
    assert 'apply -no-color -input=false "$RUNNER_TEMP/plan"' in apply
    assert "infra/bin/plan" not in apply
    assert "$CHECKSUM" in apply
    everywhere = [name for name, text in scripts() if re.search(r"terraform .*\bapply\b", text)]
    assert everywhere == ["deploy/apply/Apply", "deploy"]


def test_a_saved_plan_travels_encrypted() -> None:
    (plan,) = (step["run"] for name, step in steps() if name == "deploy/plan/Plan")
    assert plan.index("openssl enc") < plan.index('rm -f "$RUNNER_TEMP/plan"')
    (upload,) = (step for name, step in steps() if step.get("uses", "").startswith("actions/upload-artifact@"))
    assert upload["with"]["path"] == "${{ runner.temp }}/saved"
    assert 'saved/plan.enc"' in plan


def test_providers_are_locked_for_every_platform_that_applies() -> None:
    (lock,) = (step["run"] for name, step in steps() if name == "deploy/plan/Lock the providers")
    assert set(re.findall(r"-platform=(\w+)", lock)) == {"linux_amd64", "linux_arm64", "darwin_arm64"}
    (apply,) = (step["run"] for name, step in steps() if name == "deploy/apply/Apply")
    assert "-lockfile=readonly" in apply


def test_the_image_is_built_for_both_architectures() -> None:
    assert "--platform linux/amd64,linux/arm64" in (ROOT / "infra/bin/image").read_text()


# -- what they name is there ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in scripts()])
def test_a_script_can_be_parsed_and_calls_what_there_is(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert found(r"^\s*make ([a-z-]+)|`make ([a-z-]+)|   make ([a-z-]+)", text) <= targets
    for script in re.findall(r"infra/bin/([a-z-]+)", text):
        assert (ROOT / "infra" / "bin" / script).stat().st_mode & 0o111, script
    known = {command.name for app, _ in GROUPS for command in app.registered_commands}
    assert found(r"(?:\$avesa\"|bin/avesa|   avesa) ([a-z-]+)", text) - {"mapping"} <= known
    assert found(r"TF_VAR_(\w+)|-var=\"?(\w+)=", text) <= named("variable", TERRAFORM / "platform")
    assert found(r"output -no-color -raw (\w+)", text) <= named("output", TERRAFORM / "platform")


def test_the_environments_are_those_that_have_data() -> None:
    there = {file.name.removesuffix(".backend.hcl") for file in (TERRAFORM / "environments").glob("*.backend.hcl")}
    for name, job in jobs():
        if "strategy" in job and "environment" in job["strategy"]["matrix"]:
            assert set(job["strategy"]["matrix"]["environment"]) == there, name
    for file in FILES:
        typed = decoded(file).get(True, {})  # YAML 1.1 takes the word `on` for a truth
        if isinstance(typed, dict) and (asked := typed.get("workflow_dispatch")):
            assert set(asked["inputs"]["environment"]["options"]) == there, file.name


def test_the_roles_taken_are_those_that_terraform_makes() -> None:
    made = "".join(path.read_text() for path in (TERRAFORM / "modules/ci-oidc").glob("*.tf"))
    where = (ROOT / "infra/bin/where").read_text()
    taken = re.findall(r"\$roles/([a-z-]+)", where)
    assert sorted(taken) == ["avesa-apply-", "avesa-image", "avesa-plan"]
    for role in taken:
        assert re.search(rf'name\s+= "{role}["$]', made), role
    assert "/avesa-ci/" in made
    assert "role/avesa-ci" in where


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_output_that_is_used_is_given(file: Path) -> None:
    where = set(re.findall(r'^echo "(\w+)=', (ROOT / "infra/bin/where").read_text(), re.MULTILINE))
    workflow = decoded(file)
    for job in workflow["jobs"].values():
        given = {
            step["id"]: set(re.findall(r'echo "(\w+)=', step["run"])) for step in job.get("steps", []) if "id" in step
        }
        given |= {name: where for name in given if name == "where"}
        for step, output in re.findall(r"steps\.(\w+)\.outputs\.(\w+)", str(job)):
            assert output in given[step], (step, output)
        for needed, output in re.findall(r"needs\.(\w+)\.outputs\.(\w+)", str(job)):
            assert needed in ([job["needs"]] if isinstance(job["needs"], str) else job["needs"])
            assert output in workflow["jobs"][needed]["outputs"], (needed, output)
