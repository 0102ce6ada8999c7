"""The image, as far as it can be read without Docker: what goes in, and what Terraform counts on."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICE = (ROOT / "infra/terraform/modules/service/main.tf").read_text()


def instructions(word: str) -> list[str]:
    return re.findall(rf"^{word} (.*)$", DOCKERFILE, re.MULTILINE)


def test_all_that_is_copied_is_there_and_reaches_the_daemon() -> None:
    let_through = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = [words.split()[:-1] for words in instructions("COPY") if not words.startswith("--from")]
    sources = {source for words in copied for source in words}
    assert sources == let_through
    assert all((ROOT / source).exists() for source in sources)


def test_the_mapping_files_are_in_the_wheel_and_hence_in_the_image() -> None:
    assert '"mappings" = "services/mappings"' in (ROOT / "pyproject.toml").read_text()
    assert "mappings" in {words.split()[0] for words in instructions("COPY")}


def test_the_user_is_a_number_and_the_one_that_terraform_names() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert re.search(r'user\s+= "10001:10001"', SERVICE)


def test_what_terraform_mounts_is_what_the_image_keeps_the_owner_of() -> None:
    (volumes,) = instructions("VOLUME")
    (state,) = re.findall(r'state_path\s+= "([^"]+)"', SERVICE)
    assert 'volumes = { state = local.state_path, tmp = "/tmp" }' in SERVICE
    assert volumes == f'["{state}", "/tmp"]'
    assert f"install -d -o avesa -g avesa -m 0750 {state}" in DOCKERFILE


def test_its_process_is_avesa_and_gets_the_signals() -> None:
    assert instructions("ENTRYPOINT") == ['["avesa"]']
