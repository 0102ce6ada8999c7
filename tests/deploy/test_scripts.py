"""infra/bin as `make deploy` and the workflows run it. In the place of Terraform, AWS and Docker stands a script that
notes what it is asked, and answers from a table."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
ACCOUNT = "111122223333"  # of infra/terraform/environments/dev.tfvars
REPOSITORY = f"{ACCOUNT}.dkr.ecr.us-east-2.amazonaws.com/avesa"
IMAGE = f"{REPOSITORY}@sha256:{'1' * 64}"
OLDER = f"{REPOSITORY}@sha256:{'2' * 64}"
PASSWORD = "ecr-login-s3cret"

# Each tool notes its arguments; then the first answer whose words all stand among them is given.
TOOL = """#!{python}
import json, os, pathlib, sys
here = pathlib.Path({folder!r})
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
line = " ".join(words)
with (here / "asked").open("a") as asked:
    asked.write(line + "\\n")
for word in words:  # files that a tool is told to write
    for option in ("-out=",):
        if word.startswith(option):
            pathlib.Path(word.removeprefix(option)).write_text("a plan that holds s3cret")
if "--metadata-file" in words:
    pathlib.Path(words[words.index("--metadata-file") + 1]).write_text((here / "built.json").read_text())
if "--password-stdin" in words:
    (here / "password").write_text(sys.stdin.read())
if "apply" in words:
    (here / "applied").write_text(pathlib.Path(words[-1]).read_text())
for wanted, code, said in json.loads((here / "answers.json").read_text()):
    if all(word in words for word in wanted.split()):
        sys.stdout.write(said)
        sys.exit(code)
"""
Answer = tuple[str, int, str]


class Done(NamedTuple):
    code: int
    out: str
    err: str


class Desk:
    """A folder of tools, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkout = ROOT
        self.answers: list[Answer] = []
        (folder / "bin").mkdir()
        (folder / "built.json").write_text(json.dumps({"containerimage.digest": f"sha256:{'1' * 64}"}))
        for tool in ("bash", "sed", "grep", "mktemp", "rm", "cat", "date", "tr", "dirname", "env", "git"):
            (folder / "bin" / tool).symlink_to(_found(tool))
        self.has("terraform", "aws", "docker", "avesa")

    def has(self, *tools: str) -> None:
        for tool in tools:
            path = self.folder / "bin" / tool
            path.write_text(TOOL.format(python=sys.executable, folder=str(self.folder)))
            path.chmod(0o755)

    def lacks(self, tool: str) -> None:
        (self.folder / "bin" / tool).unlink()

    def copies(self) -> Path:
        """Take scripts and data from a copy of their own; the folder of the environments."""
        self.checkout, given = self.folder / "checkout", Path("infra", "terraform", "environments")
        for folder in (Path("infra", "bin"), given):
            shutil.copytree(ROOT / folder, self.checkout / folder)
        return self.checkout / given

    def run(self, script: str, *arguments: str, typed: str = "", **environment: str) -> Done:
        everything = [
            *self.answers,
            ("aws sts", 0, ACCOUNT),
            ("terraform plan", 2, ""),
            (
                "terraform show",
                0,
                "  # module.streams.aws_kinesis_stream.this will be created\n    token = s3cret\nPlan: 1 to add\n",
            ),
            ("terraform -json", 0, "{}"),
            ("terraform dashboard_url", 0, "https://dashboard"),
            ("aws get-login-password", 0, PASSWORD),
        ]
        (self.folder / "answers.json").write_text(json.dumps(everything))
        (self.folder / "asked").write_text("")
        done = subprocess.run(
            [str(self.checkout / "infra" / "bin" / script), *arguments],
            env={"PATH": str(self.folder / "bin"), "HOME": str(self.folder), "TMPDIR": str(self.folder), **environment},
            input=typed,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "s3cret" not in done.stdout + done.stderr + "".join(self.asked()), "a secret shows"
        return Done(done.returncode, done.stdout, done.stderr)

    def asked(self, *words: str) -> list[str]:
        """What tools were asked, of that what has these words in it."""
        lines = (self.folder / "asked").read_text().splitlines()
        return [line for line in lines if all(word in line.split() for word in words)]


def _found(tool: str) -> str:
    return next(str(Path(folder) / tool) for folder in os.defpath.split(":") if (Path(folder) / tool).exists())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# -- deploy -----------------------------------------------------------------------------------------------------------
def test_all_that_is_lacking_is_told_at_once_a_line_each_and_nothing_is_done(desk: Desk) -> None:
    desk.lacks("terraform")
    desk.lacks("docker")
    desk.answers = [("aws sts", 255, "")]
    done = desk.run("deploy", "dev")
    assert done.code == 1
    assert [line.split(":")[1].split(" is")[0].strip() for line in done.err.splitlines()] == [
        "terraform", "docker", "no AWS credentials that work",
    ]  # fmt: skip
    assert len(desk.asked()) == 1


def test_credentials_of_another_account_are_refused_before_anything_is_built(desk: Desk) -> None:
    desk.answers = [("aws sts", 0, "999999999999")]
    done = desk.run("deploy", "dev", CONFIRM="yes")
    assert (done.code, f"dev lives in {ACCOUNT}" in done.err) == (1, True)
    assert desk.asked("init") + desk.asked("docker", "buildx") == []


def test_an_environment_that_is_none_is_told_which_there_are(desk: Desk) -> None:
    for name in ("", "nope", "../dev", "dev;id"):
        done = desk.run("deploy", name)
        assert (done.code, "Known: dev prod staging" in done.err) == (2, True), name


def test_what_aws_says_of_the_credentials_is_passed_on(desk: Desk) -> None:
    desk.answers = [("aws sts", 255, "\nThe config profile (nope) could not be found")]
    assert "AWS_PROFILE=... (The config profile (nope) could not be found)" in desk.run("deploy", "dev").err


def test_an_account_that_nobody_prepared_is_told_before_anything_is_built(desk: Desk) -> None:
    desk.answers = [("aws ecr describe-repositories", 254, "")]
    done = desk.run("deploy", "dev", CONFIRM="yes")
    assert (done.code, "docs/deployment.md, step 1" in done.err, desk.asked("buildx")) == (1, True, [])


@pytest.mark.parametrize(("version", "code"), [("v1.10.5", 1), ("v0.15.0", 1), ("v1.11.0", 0), ("v2.0.1", 0)])
def test_a_terraform_that_is_too_old_is_told_at_once(desk: Desk, version: str, code: int) -> None:
    desk.answers = [("terraform version", 0, f"Terraform {version}\non linux_amd64\n")]
    done = desk.run("deploy", "dev", IMAGE=IMAGE, CONFIRM="yes")
    assert (done.code, f"too old ({version.rpartition('.')[0]})" in done.err) == (code, code == 1)


@pytest.mark.parametrize("typed", ["", "n\n", "maybe\n"])
def test_without_a_yes_nothing_is_changed(desk: Desk, typed: str) -> None:
    done = desk.run("deploy", "dev", typed=typed, IMAGE=IMAGE)
    assert (done.code, "nothing was changed" in done.err) == (1, True)
    assert "Plan: 1 to add" in done.out
    assert desk.asked("apply") == []


@pytest.mark.parametrize(("typed", "confirm"), [("y\n", ""), ("", "yes")])
def test_after_a_yes_the_very_plan_that_was_shown_is_applied_and_is_gone_in_the_end(
    desk: Desk, typed: str, confirm: str
) -> None:
    done = desk.run("deploy", "dev", typed=typed, IMAGE=IMAGE, CONFIRM=confirm)
    assert done.code == 0, done.err
    assert (desk.folder / "applied").read_text() == "a plan that holds s3cret"
    assert [path.name for path in desk.folder.glob("tmp.*")] == []
    (plan,) = desk.asked("plan")
    assert f"-var=image={IMAGE}" in plan
    assert "-var-file=../environments/dev.tfvars" in plan
    (doctor,) = desk.asked("doctor")
    assert "--environment dev --region us-east-2 --terraform" in doctor


def test_where_nothing_would_change_nothing_is_asked_or_applied_and_the_doctor_still_looks(desk: Desk) -> None:
    desk.answers = [("terraform plan", 0, "")]
    done = desk.run("deploy", "dev", IMAGE=IMAGE)
    assert (done.code, "nothing would change" in done.out) == (0, True)
    assert (desk.asked("apply"), len(desk.asked("doctor"))) == ([], 1)


@pytest.mark.parametrize(("found", "code"), [(0, 0), (3, 0), (1, 1)])
def test_what_the_doctor_finds_decides_how_it_ends(desk: Desk, found: int, code: int) -> None:
    desk.answers = [("avesa doctor", found, "")]
    done = desk.run("deploy", "dev", IMAGE=IMAGE, CONFIRM="yes")
    assert done.code == code
    assert "make smoke ENV=dev" in done.out
    assert "https://dashboard" in done.out


def test_a_plan_that_fails_ends_it_with_terraforms_own_words(desk: Desk) -> None:
    desk.answers = [("terraform plan", 1, "Reading...\n╷\n│ Error: no such zone\n╵\n")]
    done = desk.run("deploy", "dev", IMAGE=IMAGE, CONFIRM="yes")
    assert (done.code, "Error: no such zone" in done.err, "Reading" in done.err) == (1, True, False)
    assert desk.asked("apply") + desk.asked("doctor") == []


def test_what_terraform_warns_of_is_shown_and_nothing_beside_it(desk: Desk) -> None:
    said = "Refreshing\n\x1b[33m╷\x1b[0m\n│ Warning: fewer shards to share\n╵\n  + token = s3cret\n"
    desk.answers = [("terraform plan", 2, said)]
    done = desk.run("deploy", "dev", IMAGE=IMAGE, CONFIRM="yes")
    assert (done.code, done.err) == (0, "╷\n│ Warning: fewer shards to share\n╵\n")
    assert all("-no-color" not in asked for asked in desk.asked("plan")), "there are no boxes without colour"


def test_data_that_terraform_knows_no_variable_for_are_not_planned(desk: Desk) -> None:
    said = '╷\n│ Warning: Value for undeclared variable\n│ a variable named "alert_email"\n╵\n'
    desk.answers = [("terraform plan", 2, said)]
    done = desk.run("deploy", "dev", IMAGE=IMAGE, CONFIRM="yes")
    assert (done.code, '"alert_email"' in done.err, desk.asked("apply")) == (1, True, [])


@pytest.mark.parametrize("code", [1, 2])
def test_a_plan_that_could_not_begin_has_failed(desk: Desk, code: int) -> None:
    desk.answers = [("terraform init", code, "no such bucket")]
    done = desk.run("plan", "dev", str(desk.folder / "plan"), IMAGE)
    assert (done.code, "no such bucket" in done.err, desk.asked("plan")) == (1, True, [])
    assert desk.run("plan", "nope", str(desk.folder / "plan")).code == 1


# -- where ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("tfvars", 'environment = "anna"', 'environment = "dev"', "environment has to be 'anna'"),
        ("tfvars", f'account_id  = "{ACCOUNT}"', 'account_id  = "1111"', "account_id has to be twelve digits"),
        ("tfvars", 'region      = "us-east-2"', 'region      = "$(id)"', "region has to be a region"),
        ("backend.hcl", "anna/platform.tfstate", "dev/platform.tfstate", "key has to be 'anna/platform.tfstate'"),
    ],
)
def test_files_that_are_of_another_environment_or_of_none_are_refused(
    desk: Desk, file: str, before: str, after: str, said: str
) -> None:
    folder = desk.copies()
    for ending in ("tfvars", "backend.hcl"):
        copied = (folder / f"dev.{ending}").read_text().replace('"dev', '"anna')
        (folder / f"anna.{ending}").write_text(copied)
    assert desk.run("where", "anna").code == 0
    right = (folder / f"anna.{file}").read_text()
    assert before in right
    (folder / f"anna.{file}").write_text(right.replace(before, after))
    done = desk.run("where", "anna")
    assert (done.code, done.out, said in done.err, f"anna.{file}" in done.err) == (2, "", True, True)


def test_who_names_none_or_the_emulators_is_told_so(desk: Desk) -> None:
    assert "no environment is named" in desk.run("where").err
    assert "make infra-local" in desk.run("where", "local").err


def test_a_mistake_in_a_mapping_file_is_found_before_the_image_is_built(desk: Desk) -> None:
    desk.answers = [("avesa mapping validate", 1, "")]
    assert desk.run("deploy", "dev", CONFIRM="yes").code == 1
    assert desk.asked("docker", "buildx") == []


def test_an_image_by_tag_is_refused(desk: Desk) -> None:
    done = desk.run("deploy", "dev", IMAGE=f"{REPOSITORY}:latest")
    assert (done.code, "by its digest" in done.err) == (1, True)


# -- image ------------------------------------------------------------------------------------------------------------
def test_an_image_is_built_for_both_architectures_and_named_by_its_digest(desk: Desk) -> None:
    done = desk.run("image", "dev")
    assert (done.code, done.out) == (0, f"{IMAGE}\n")
    (build,) = desk.asked("buildx", "build")
    assert "--platform linux/amd64,linux/arm64 --push" in build
    assert (desk.folder / "password").read_text() == PASSWORD
    assert desk.asked("docker", "logout")


def test_a_commit_that_is_in_the_registry_is_not_built_again(desk: Desk) -> None:
    desk.answers = [("aws ecr describe-images", 0, f"sha256:{'1' * 64}\n")]
    done = desk.run("image", "dev")
    assert (done.code, done.out, desk.asked("docker")) == (0, f"{IMAGE}\n", [])


def test_what_is_not_committed_never_takes_the_tag_of_a_commit(desk: Desk) -> None:
    desk.lacks("git")
    desk.has("git")
    tags = []
    for changes in ("", " M services/cli/main.py\n"):
        desk.answers = [("git rev-parse", 0, "36421df0c1d2" + "0" * 28), ("git status", 0, changes)]
        desk.run("image", "dev")
        (build,) = desk.asked("buildx", "build")
        tags.append(build.split("--tag ")[1].split()[0].removeprefix(f"{REPOSITORY}:"))
    assert tags[0].endswith("-36421df0c1d2")
    assert tags[1].startswith(f"{tags[0]}-changed-")


def test_production_gets_no_image_of_what_is_not_committed(desk: Desk) -> None:
    desk.lacks("git")
    desk.has("git")
    desk.answers = [("git rev-parse", 0, "36421df0c1d2" + "0" * 28), ("git status", 0, " M services/cli/main.py\n")]
    done = desk.run("image", "prod")
    assert (done.code, "not committed" in done.err, desk.asked("docker", "buildx")) == (1, True, [])


# -- rollback ---------------------------------------------------------------------------------------------------------
def ran(*images: str) -> list[Answer]:
    """The revisions of a task definition, the oldest first; the last one runs."""
    history = [
        (f"aws describe-task-definition avesa-extractor-dev:{number}", 0, image)
        for number, image in enumerate(images, start=1)
    ]
    definition = f"arn:aws:ecs:us-east-2:{ACCOUNT}:task-definition/avesa-extractor-dev:{len(images)}"
    return [("aws list-services", 0, "arn:one"), ("aws describe-services", 0, definition), *reversed(history)]


def test_the_image_before_is_the_last_that_differs_from_the_one_that_runs(desk: Desk) -> None:
    desk.answers = ran("oldest@sha256:3", OLDER, IMAGE, IMAGE)
    done = desk.run("previous-image", "dev")
    assert (done.code, done.out) == (0, f"{OLDER}\n")


def test_an_image_that_the_registry_let_go_is_nothing_to_go_back_to(desk: Desk) -> None:
    desk.answers = [("aws ecr describe-images", 254, ""), *ran(OLDER, IMAGE)]
    done = desk.run("previous-image", "dev")
    assert (done.code, done.out, "not in the registry" in done.err) == (1, "", True)


def test_where_only_one_image_ever_ran_it_says_so(desk: Desk) -> None:
    desk.answers = ran(IMAGE, IMAGE)
    done = desk.run("previous-image", "dev")
    assert (done.code, done.out, "no other image" in done.err) == (1, "", True)


def test_where_nothing_was_ever_deployed_there_is_nothing_to_go_back_to(desk: Desk) -> None:
    desk.answers = [("aws list-services", 0, "None\n")]
    done = desk.run("previous-image", "dev")
    assert (done.code, done.out, "nothing to go back to" in done.err) == (1, "", True)


def test_nobody_looks_for_it_with_credentials_of_another_account(desk: Desk) -> None:
    desk.answers = [("aws sts", 0, "999999999999")]
    done = desk.run("previous-image", "dev")
    assert (done.code, f"dev lives in {ACCOUNT}" in done.err, desk.asked("list-services")) == (1, True, [])


# -- make -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "runs"),
    [
        (("deploy", "ENV=dev"), 'infra/bin/deploy "dev"'),
        (("rollback", "ENV=dev"), 'infra/bin/previous-image "dev"'),
        (("smoke", "ENV=dev"), 'avesa smoke --environment "dev" --region "$region"'),
    ],
)
def test_make_runs_them(words: tuple[str, ...], runs: str) -> None:
    done = subprocess.run(["make", "-n", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    assert runs in done.stdout, done.stderr
