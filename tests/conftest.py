"""Fixtures for all tests, and the guard: no test can reach a real AWS account."""
# ruff: noqa: TID251  the guard is about the environment itself

import os
from collections.abc import Iterator
from itertools import count

import pytest

from services.runtime.settings import Settings
from services.sandbox.embedded import EmbeddedAws
from tests.runtime import kinesis_emulator
from tests.runtime.kinesis_emulator import Emulator

# Before any test module is imported: no key, no profile, no endpoint of the user's, and nowhere to ask for one.
for name in [name for name in os.environ if name.startswith(("AWS_", "AVESA_", "LOCALSTACK_", "BOTO_"))]:
    del os.environ[name]
for name in ("BUCKET_NAME", "TENANT_SERVICES_TABLE", "LAST_UPDATED_TABLE", "ENVIRONMENT", "EDGE_PORT"):
    os.environ.pop(name, None)
os.environ |= {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # the discard port: nothing listens
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_REGION": "us-east-2",
}

_environments = count(1)


@pytest.fixture(scope="session")
def embedded_aws() -> Iterator[str]:
    """The url of an embedded AWS, one for all tests of this process."""
    with EmbeddedAws.start() as aws:
        yield aws.url


@pytest.fixture
def settings(embedded_aws: str) -> Settings:
    """Settings for the embedded AWS, with an environment nobody else uses; nothing is provisioned in it yet."""
    return Settings.embedded(embedded_aws, environment=f"test{next(_environments)}")


@pytest.fixture(scope="session")
def kinesalite() -> Iterator[Emulator]:
    """A Kinesis that keeps the parents of a reshard, quick; one for all tests of this process."""
    with kinesis_emulator.kinesalite() as running:
        yield running


@pytest.fixture(scope="session")
def kinesis_local() -> Iterator[Emulator]:
    """Another such Kinesis, slow."""
    with kinesis_emulator.kinesis_local() as running:
        yield running
