"""Terraform as a person runs it, on a copy of infra/terraform: nothing is left in the repository."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from services.contracts.errors import FatalError, UsageError
from services.runtime.settings import child_environment, variable

REPOSITORY: Final = Path(__file__).parents[2]
LINK: Final = REPOSITORY.parent / "shared" / "tools" / "link-terraform-provider"
MIRROR: Final = Path.home() / ".terraform.d" / "plugins" / "registry.terraform.io" / "hashicorp" / "aws"
ACCOUNT: Final = "000000000000"  # of ministack, and of imagined.tftest.hcl
STEP_S_MAX: Final = 600.0
STOP_S: Final = 15.0
LINES_MAX: Final = 40  # of what a command that failed had printed
# Where it finds providers, and what it may read of the user's; nothing of AWS.
CONFIG: Final = "TF_CLI_CONFIG_FILE"
PASSED_ON: Final = ("HOME", CONFIG, "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE")
LOCAL_STATE: Final = 'terraform {\n  backend "local" {}\n}\n'
UNREACHABLE: Final = ("Failed to query available provider packages", "Failed to install provider")


class Root:
    """The platform root, initialised, with its state in `folder`.

    Errors: UsageError `not_found` where Terraform or its AWS provider cannot be had; FatalError with what Terraform
    said where it fails otherwise.
    """

    def __init__(self, folder: Path) -> None:
        self.base, self.folder = folder, folder / "infra" / "terraform" / "platform"

    @classmethod
    def copied(cls, folder: Path) -> Self:
        """A new one below `folder`."""
        if shutil.which("terraform") is None:
            raise UsageError(
                "terraform is not on the path", code="not_found", remedy="Install Terraform 1.11 or newer."
            )
        made = cls(folder)
        source, left = REPOSITORY / "infra" / "terraform", shutil.ignore_patterns(".terraform*", "*.tfstate*", "tests")
        shutil.copytree(source, made.folder.parent, ignore=left)
        (folder / "mappings").symlink_to(REPOSITORY / "mappings")  # the root reads which vendors there are
        (made.folder / "backend_override.tf").write_text(LOCAL_STATE)
        if LINK.is_file() and not MIRROR.is_dir():
            subprocess.run([LINK], check=True, capture_output=True, timeout=STEP_S_MAX)
        try:
            made.run("init", "-input=false")
        except FatalError as err:
            if not any(words in err.what for words in UNREACHABLE):
                raise
            raise UsageError(
                "the AWS provider cannot be had: terraform init found no registry", code="not_found"
            ) from err
        return made

    def run(self, *arguments: str, seconds_max: float = STEP_S_MAX) -> str:
        """One command; what it printed."""
        with subprocess.Popen(
            ["terraform", *arguments],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=seconds_max)
            except BaseException:  # interrupted, or too slow
                _end(process)
                raise
        if process.returncode:
            raise FatalError(f"terraform {arguments[0]} failed:\n{_said(out)}\n{err.strip()}".strip())
        return out

    def apply(self, endpoint: str) -> None:
        """Create the environment `local` on the emulator at `endpoint`."""
        self.run("apply", "-input=false", "-auto-approve", *local(endpoint))

    def destroy(self, endpoint: str) -> None:
        """Remove all of it."""
        self.run("destroy", "-input=false", "-auto-approve", *local(endpoint))

    def resources(self) -> list[str]:
        """Addresses of what is in the state."""
        return [line for line in self.run("state", "list").splitlines() if not _is_data(line)]

    def outputs(self) -> dict[str, Any]:
        raw = msgspec.json.decode(self.run("output", "-json"), type=dict[str, dict[str, Any]])
        return {name: output["value"] for name, output in raw.items()}

    def imagined(self, *options: str, account: str = ACCOUNT) -> dict[str, Any]:
        """What an apply with `options` would leave behind in `account`, by a provider that asks nobody."""
        test = Path(__file__).with_name("imagined.tftest.hcl").read_text()
        (self.folder / "tests").mkdir(exist_ok=True)
        (self.folder / "tests" / "imagined.tftest.hcl").write_text(test.replace(ACCOUNT, account))
        for line in self.run("test", "-json", "-verbose", *options).splitlines():
            said = msgspec.json.decode(line)
            if said["type"] == "test_state":
                return {name: said["test_state"][name] for name in ("outputs", "root_module")}
        raise FatalError("terraform test told of no state")


class Imagined:
    """A state as `terraform show -json` has it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.outputs: dict[str, Any] = {name: output["value"] for name, output in values["outputs"].items()}
        self._root = values["root_module"]

    def resources(self, kind: str) -> dict[str, dict[str, Any]]:
        """Values of all resources of a kind, by address."""
        found: dict[str, dict[str, Any]] = {}
        modules = [self._root]
        while modules:
            module = modules.pop()
            modules += module.get("child_modules", ())
            found |= {one["address"]: one["values"] for one in module.get("resources", ()) if one["type"] == kind}
        return found


def _end(process: "subprocess.Popen[str]") -> None:
    """End it with its plug-ins, which would outlive it; first it is asked to write its state."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
            return


def account_of(environment: str) -> str:
    """Where an environment lives, by its file."""
    variables = (REPOSITORY / "infra" / "terraform" / "environments" / f"{environment}.tfvars").read_text()
    (account,) = re.findall(r'^account_id\s*=\s*"(\d{12})"', variables, re.M)
    return str(account)


def environment() -> dict[str, str]:
    passed = {name: text for name in PASSED_ON if (text := variable(name))}
    if not Path(passed.get(CONFIG, "")).is_file():
        passed.pop(CONFIG, None)  # it would warn of it at every step
    return child_environment(**passed, TF_IN_AUTOMATION="1", AWS_EC2_METADATA_DISABLED="true", CHECKPOINT_DISABLE="1")


def local(endpoint: str) -> list[str]:
    """The options of the environment `local`."""
    return ["-var-file=../environments/local.tfvars", f"-var=emulator_endpoint={endpoint}"]


def _is_data(address: str) -> bool:
    return address.startswith("data.") or ".data." in address


def _said(output: str) -> str:
    """What is wrong, out of all that was printed."""
    lines = output.splitlines()
    told = [msgspec.json.decode(line).get("diagnostic", {}) for line in lines if line.startswith('{"@')]
    wrong = [f"{one['summary']}: {one['detail']}" for one in told if one.get("severity") == "error"]
    return "\n".join(dict.fromkeys(wrong) if told else lines[-LINES_MAX:])
