import pytest

from services.contracts.errors import UsageError
from services.runtime.settings import HIDDEN, Settings, is_loopback


def read(**variables: str) -> Settings:
    return Settings.from_environment(variables)


def test_nothing_given_means_the_dev_environment_on_real_aws_in_ohio() -> None:
    settings = read()
    assert (settings.environment, settings.region, settings.endpoint_url) == ("dev", "us-east-2", None)
    assert settings.access_key is None
    assert not settings.emulator


def test_an_option_wins_over_a_variable_and_a_variable_over_a_default() -> None:
    variables = {"ENVIRONMENT": "staging", "AWS_REGION": "eu-west-1", "AVESA_LEASE_S": "12.5"}
    settings = Settings.from_environment(variables, environment="prod", region=None)
    assert (settings.environment, settings.region, settings.lease_s) == ("prod", "eu-west-1", 12.5)


def test_the_region_of_the_command_line_tools_is_taken_where_no_other_is_given() -> None:
    assert read(AWS_DEFAULT_REGION="eu-west-1").region == "eu-west-1"
    assert read(AWS_DEFAULT_REGION="eu-west-1", AWS_REGION="us-west-2").region == "us-west-2"


def test_names_of_the_system_this_one_replaces_are_honoured() -> None:
    names = read(ENVIRONMENT="prod", BUCKET_NAME="lake", TENANT_SERVICES_TABLE="T", LAST_UPDATED_TABLE="L").names
    assert (names.bucket, names.tenant_services, names.last_updated, names.leases) == ("lake", "T", "L", "Leases")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("AVESA_LEASE_S", "0"), ("AVESA_THREADS", "many"), ("AVESA_LOG", "loud"), ("ENVIRONMENT", "Prod!")],
)
def test_what_cannot_be_used_is_refused_with_the_name_of_its_variable(variable: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.from_environment({variable: value})
    assert str(caught.value).startswith(variable)
    assert repr(value.lower() if variable == "AVESA_LOG" else value) in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"AWS_ENDPOINT_URL": "http://localhost:4566"}, "http://localhost:4566"),
        ({"LOCALSTACK_HOST": "localstack:4566"}, "http://localstack:4566"),
        ({"LOCALSTACK_HOST": "ci-runner"}, "http://ci-runner:4566"),
        ({"LOCALSTACK_ENDPOINT": "http://emulator:4510"}, "http://emulator:4510"),
        ({"EDGE_PORT": "4510"}, "http://localhost:4510"),
    ],
)
def test_an_emulator_named_by_a_variable_is_used_with_keys_worth_nothing(variables: dict[str, str], url: str) -> None:
    settings = Settings.from_environment(variables)
    assert (settings.endpoint_url, settings.emulator, settings.access_key) == (url, True, "test")


def test_a_bad_localstack_host_is_refused_with_the_form_expected() -> None:
    with pytest.raises(UsageError, match="host:port"):
        read(LOCALSTACK_HOST="localhost:http")


@pytest.mark.parametrize(
    "url", ["https://kinesis.us-east-2.amazonaws.com", "https://vpce-1.s3.us-east-2.vpce.amazonaws.com"]
)
def test_an_endpoint_of_amazon_is_never_an_emulator(url: str) -> None:
    settings = read(AWS_ENDPOINT_URL=url)
    assert not settings.emulator
    assert settings.access_key is None


def test_keys_and_profile_given_for_an_emulator_are_left_to_boto() -> None:
    assert read(AWS_ENDPOINT_URL="http://localhost:4566", AWS_ACCESS_KEY_ID="000000000042").access_key is None
    chosen = Settings.from_environment({"AWS_ENDPOINT_URL": "http://localhost:4566"}, profile="localstack")
    assert (chosen.access_key, chosen.profile) == (None, "localstack")


@pytest.mark.parametrize(
    "url",
    [
        "https://kinesis.us-east-2.amazonaws.com", "http://localhost.example.com", "http://10.0.0.1:4566",
        "http://127.0.0.1.nip.io:4566", "localhost:4566", "ftp://localhost", "http://localhost:port", "",
        "http://user@evil.example:80@127.0.0.1.evil.example",
    ],
)  # fmt: skip
def test_embedded_settings_refuse_whatever_is_not_this_machine(url: str) -> None:
    with pytest.raises(UsageError, match="not on this machine"):
        Settings.embedded(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4566", "http://localhost:1", "https://[::1]:2", "http://a.localhost"]
)
def test_loopback_is_this_machine_by_definition(url: str) -> None:
    assert is_loopback(url)


def test_embedded_settings_ignore_the_environment_and_carry_keys_worth_nothing() -> None:
    settings = Settings.embedded("http://127.0.0.1:4566", environment="demo", lease_s=3)
    assert (settings.access_key, settings.secret_key, settings.profile) == ("test", "test", None)
    assert (settings.environment, settings.names.raw_stream, settings.lease_s) == ("demo", "avesa-raw-demo", 3)


def test_no_secret_shows_when_settings_are_printed() -> None:
    settings = Settings.from_environment({}, access_key="AKIA1", secret_key="hush-hush", session_token="whisper")
    for shown in (repr(settings), str(settings), str(settings.__rich_repr__())):
        assert "hush-hush" not in shown
        assert "whisper" not in shown
        assert HIDDEN in shown
    assert settings.secrets == ("hush-hush", "whisper")
