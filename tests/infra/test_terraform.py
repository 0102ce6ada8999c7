"""infra/terraform by the tools that judge it. Where Terraform or its provider cannot be had these tests say so, and one
of them still fails where the files changed without anybody having validated them."""

from pathlib import Path

import pytest

from services.contracts.errors import UsageError
from services.runtime.mapping_files import load_mappings
from tests.infra import validation
from tests.infra.conftest import locked, once
from tests.infra.terraform import REPOSITORY
from tests.infra.validation import ROOTS, TERRAFORM, digest, environments, modules, noted, tftest_files


@pytest.fixture(scope="session")
def copy(together: Path) -> Path:
    """A copy of infra/terraform, initialised once for all. Skips where that cannot be."""

    def make(folder: Path) -> bytes:
        validation.copied(folder)
        return b""

    try:
        once(together, "validation", make)
    except UsageError as err:
        pytest.skip(f"{err}; infra/terraform is what was validated elsewhere, which another test here holds it to")
    return together / "validation"


def test_what_lies_here_has_been_validated() -> None:
    told = "infra/terraform changed and nobody has validated it: run `make infra-validate`, commit .validated"
    assert digest() == noted(), told


def test_files_are_formatted_as_terraform_formats_them(copy: Path) -> None:
    assert copy.is_dir()
    validation.formatted()


@pytest.mark.parametrize("folder", ROOTS)
def test_every_root_is_valid(copy: Path, together: Path, folder: str) -> None:
    with locked(together / f"{folder}.init"):
        validation.validated(copy, folder)


@pytest.mark.parametrize("folder", modules())
def test_every_module_is_called_by_a_root(folder: str) -> None:
    """What is not called is not validated."""
    texts = [path.read_text() for root in ROOTS for path in (TERRAFORM / root).glob("*.tf")]
    assert any(f'"../{folder}"' in text for text in texts)


@pytest.mark.parametrize("file", tftest_files())
def test_terraforms_own_tests_pass(copy: Path, together: Path, file: str) -> None:
    with locked(together / f"{file.partition('/tests/')[0].replace('/', '-')}.init"):
        validation.tested(copy, file)


@pytest.mark.parametrize("name", environments())
def test_every_environment_plans(copy: Path, name: str) -> None:
    validation.planned(copy, name)


def test_checkov_has_nothing_to_say_that_is_not_answered() -> None:
    if not validation.scanned():
        pytest.skip("checkov is not installed: `make infra-validate` installs it")


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text("a")
    before = digest(tmp_path)
    (tmp_path / "main.tf").write_text("b")
    assert digest(tmp_path) != before


def test_what_terraform_makes_of_a_provider_is_no_part_of_it(tmp_path: Path) -> None:
    before = digest(tmp_path)
    (tmp_path / ".terraform").mkdir()
    (tmp_path / ".terraform" / "modules.hcl").touch()
    (tmp_path / ".terraform.lock.hcl").touch()
    assert digest(tmp_path) == before


def test_every_vendor_with_a_mapping_file_can_have_a_fleet() -> None:
    """What the root reads with `fileset` is what the services load."""
    files = load_mappings(None)
    folder = REPOSITORY / "mappings"
    assert {path.stem for path in (folder / "integrations").glob("*.json")} == set(files.integrations)
    assert {path.stem for path in (folder / "canonical").glob("*.json")} == set(files.tables)
