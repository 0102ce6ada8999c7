"""What Terraform and checkov say of infra/terraform, on a copy of it; and `make infra-validate`, which notes what they
have seen, for places where no provider can be had.

    fmt -> init -> validate -> terraform test of the root and of each module -> each environment's file -> checkov
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from services.contracts.errors import AvesaError, FatalError, UsageError
from tests.infra.terraform import REPOSITORY, Root, environment

TERRAFORM: Final = REPOSITORY / "infra" / "terraform"
NOTED: Final = TERRAFORM / ".validated"
ROOTS: Final = ("bootstrap", "platform")
KINDS: Final = (".tf", ".hcl", ".tfvars")
NOT_OURS: Final = ".terraform"
LOCK: Final = ".terraform.lock.hcl"
SCAN_S_MAX: Final = 300.0
# `make infra-validate` puts it there; anybody else's will do.
SCANNER: Final = REPOSITORY / ".venv-infra" / "bin" / "checkov"


def digest(folder: Path = TERRAFORM) -> str:
    """Of every file that Terraform or its linters read, and its name."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and (path.suffix in KINDS or name == ".checkov.yaml") and NOT_OURS not in name:
            whole.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return whole.hexdigest()


def noted() -> str:
    """The digest of what was validated last."""
    return NOTED.read_text().split()[0] if NOTED.exists() else ""


def copied(folder: Path) -> None:
    """The platform, initialised, and everything beside it with its tests. Errors: UsageError without a provider."""
    made = Root.copied(folder).folder.parent
    shutil.copytree(TERRAFORM, made, ignore=shutil.ignore_patterns(".terraform*"), dirs_exist_ok=True)


def modules() -> list[str]:
    """By their paths in infra/terraform."""
    return [f"modules/{path.name}" for path in sorted((TERRAFORM / "modules").iterdir()) if path.is_dir()]


def tftest_files() -> list[str]:
    """Every test of Terraform's own that needs no variables from outside, as {folder}/tests/{file}."""
    folders = [TERRAFORM / folder / "tests" for folder in (*ROOTS, *modules())]
    return [
        path.relative_to(TERRAFORM).as_posix() for folder in folders for path in sorted(folder.glob("*.tftest.hcl"))
    ]


def environments() -> list[str]:
    return sorted(path.stem for path in (TERRAFORM / "environments").glob("*.tfvars"))


def formatted() -> None:
    """Errors: FatalError with the names of the files that are not."""
    _terraform(TERRAFORM, "fmt", "-check", "-recursive", "-list=true")


def validated(copy: Path, folder: str) -> None:
    """A root says nothing impossible, nor does a module that it calls. Errors: FatalError."""
    _at(copy, folder)
    _terraform(copy / "infra" / "terraform" / folder, "validate")


def tested(copy: Path, file: str) -> None:
    """One of Terraform's own tests passes. Errors: FatalError."""
    folder, _, name = file.partition("/tests/")
    _at(copy, folder)
    _terraform(copy / "infra" / "terraform" / folder, "test", f"-filter=tests/{name}")


def planned(copy: Path, name: str) -> None:
    """An environment's file makes a whole plan. Errors: FatalError."""
    options = ("-test-directory=tests/environments", f"-var-file=../environments/{name}.tfvars")
    _terraform(copy / "infra" / "terraform" / "platform", "test", *options)


def scanned() -> bool:
    """Whether checkov is here; it has nothing to say that is not answered. Errors: FatalError."""
    scanner = str(SCANNER) if SCANNER.exists() else shutil.which("checkov")
    if scanner is None:
        return False
    options = ("--config-file", str(TERRAFORM / ".checkov.yaml"), "--skip-download")
    _run([scanner, "-d", str(TERRAFORM), *options], REPOSITORY, SCAN_S_MAX)
    return True


def steps(copy: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """All of it, by what it is called."""
    yield "fmt", formatted
    for folder in ROOTS:
        yield f"validate {folder}", lambda folder=folder: validated(copy, folder)  # type: ignore[misc]
    for file in tftest_files():
        yield f"test {file}", lambda file=file: tested(copy, file)  # type: ignore[misc]
    for name in environments():
        yield f"plan {name}", lambda name=name: planned(copy, name)  # type: ignore[misc]


def _at(copy: Path, folder: str) -> None:
    """Initialise it, if it is not. A module has no modules of its own, so the root's provider is all that it takes; an
    `init` would hash it, which is most of the time that one takes."""
    terraform = copy / "infra" / "terraform"
    here = terraform / folder / NOT_OURS
    if here.exists():
        return
    if folder in ROOTS:
        _terraform(terraform / folder, "init", "-input=false", "-backend=false")
        return
    shutil.copy(terraform / "platform" / LOCK, here.with_name(LOCK))
    here.mkdir()
    (here / "providers").symlink_to(terraform / "platform" / NOT_OURS / "providers")


def _terraform(folder: Path, command: str, *options: str) -> None:
    if shutil.which("terraform") is None:
        raise UsageError("terraform is not on the path", code="not_found", remedy="Install Terraform 1.11 or newer.")
    _run(["terraform", command, "-no-color", *options], folder, SCAN_S_MAX)


def _run(command: list[str], folder: Path, seconds_max: float) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=seconds_max, check=False
    )
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}".strip()
        raise FatalError(f"{' '.join(command[:2])} in {folder.name} failed:\n{said}")


def main() -> int:
    """One line per step; then the note."""
    before = digest()
    try:
        with tempfile.TemporaryDirectory(prefix="avesa-infra-") as folder:
            copied(Path(folder))
            for name, step in steps(Path(folder)):
                began = time.monotonic()
                step()
                print(f"{time.monotonic() - began:6.1f} s  {name}", flush=True)
            print(f"          checkov {'has nothing to say' if scanned() else 'is not installed: not run'}")
    except (AvesaError, subprocess.TimeoutExpired) as err:
        print(err, file=sys.stderr)
        return 1
    if digest() != before:
        print("infra/terraform changed meanwhile: validate it again", file=sys.stderr)
        return 1
    NOTED.write_text(f"{before}  of infra/terraform, validated by `make infra-validate`\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
