"""Which AWS a command uses, and what it says when there is none."""

import json
from pathlib import Path

import pytest

from services.runtime.settings import Settings
from services.sandbox.embedded import free_port
from tests.cli.conftest import Avesa


def up(url: str, environment: str) -> None:
    """As `avesa up` does while it runs."""
    Path(".avesa").mkdir()
    Path(".avesa/up.json").write_text(json.dumps({"endpoint_url": url, "environment": environment}))


def test_without_any_aws_the_three_ways_are_named(avesa: Avesa) -> None:
    told = avesa("services")
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("error: no AWS is configured\n")
    assert all(way in told.err for way in ("avesa up", "AWS_ENDPOINT_URL", "AWS_PROFILE"))


def test_an_endpoint_that_does_not_answer_is_waited_for_and_named(
    avesa: Avesa, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    told = avesa("services", "--wait-s", "0.2")
    assert told.code == 1
    assert f"waiting for {url}, 0.2 s at most: " in told.err
    assert f"error: {url} did not answer within 0.2 s" in told.err


def test_a_profile_that_is_not_there_is_told(avesa: Avesa) -> None:
    told = avesa("services", "--profile", "nobody")
    assert told.code == 1
    assert "nobody" in told.err
    assert "Traceback" not in told.err


def test_on_an_emulator_what_is_missing_is_created(avesa: Avesa, aws: Settings) -> None:
    told = avesa("services")
    assert (told.code, told.out) == (0, "")
    assert told.err.startswith("no such service is connected")


def test_a_running_up_is_used_when_nothing_else_is_configured_and_said_so(avesa: Avesa, settings: Settings) -> None:
    assert settings.endpoint_url is not None
    up(settings.endpoint_url, settings.environment)
    told = avesa("services")
    assert told.code == 0
    assert told.err.startswith(f"using the embedded AWS of `avesa up` at {settings.endpoint_url}\n")


def test_an_endpoint_of_the_environment_wins_over_a_running_up(avesa: Avesa, aws: Settings) -> None:
    up("http://127.0.0.1:9", "dev")
    told = avesa("services")
    assert (told.code, "using" in told.err) == (0, False)


def test_keys_given_for_the_command_win_over_a_running_up_and_it_is_said(
    avesa: Avesa, monkeypatch: pytest.MonkeyPatch
) -> None:
    up("http://127.0.0.1:9", "dev")
    told = avesa("services", "--profile", "nobody")
    assert told.err.startswith("using AWS us-east-2 (profile nobody), not the embedded AWS that `avesa up` runs here\n")


def test_an_up_that_has_ended_is_told_from_one_that_runs(avesa: Avesa) -> None:
    up(f"http://127.0.0.1:{free_port()}", "dev")
    told = avesa("services", "--wait-s", "0")
    assert told.code == 1
    assert "Its `avesa up` seems to have ended: start it again, or remove .avesa/up.json." in told.err


def test_an_unreadable_up_file_is_told(avesa: Avesa) -> None:
    up("x", "y")
    Path(".avesa/up.json").write_text("{")
    told = avesa("services")
    assert (told.code, "  where: .avesa/up.json\n" in told.err) == (2, True)


def test_a_bad_environment_is_a_mistake_of_usage(avesa: Avesa, aws: Settings) -> None:
    told = avesa("services", "--environment", "Not An Environment")
    assert (told.code, told.out) == (2, "")
    assert "ENVIRONMENT" in told.err
