"""The door to AWS: one connection, the four services the ports need."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.loaders import create_loader

from services.runtime.aws_client import Client
from services.runtime.aws_errors import translated
from services.runtime.kinesis import KinesisStreams
from services.runtime.objects import S3Objects
from services.runtime.rows import DynamoRows
from services.runtime.secrets import SecretsManager
from services.runtime.settings import Settings

# The descriptions of the services, read once per process: most of what opening a client costs (80 of 100 ms).
_MODELS: Final = create_loader()

# Session variables with neither variable nor file behind them: (config file key, variables, default, conversion).
_UNAWARE: Final = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
    "ca_bundle": (None, None, None, None),
    "use_fips_endpoint": (None, None, False, None),
    "use_dualstack_endpoint": (None, None, False, None),
}


class Aws(msgspec.Struct, frozen=True):
    """The ports to the outside, as AWS serves them."""

    streams: KinesisStreams
    objects: S3Objects
    rows: DynamoRows
    secrets: SecretsManager


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Aws]:
    """The ports, open until the block ends.

    Errors: FatalError when the profile or region asked for does not exist; nothing is sent before the first call.
    """
    # An emulator encrypts nothing, and the embedded one has no keys.
    key = None if settings.emulator else settings.names.secrets_key
    async with open_clients(settings, "kinesis", "s3", "dynamodb", "secretsmanager") as clients:
        yield Aws(
            streams=KinesisStreams(clients["kinesis"]),
            objects=S3Objects(clients["s3"], settings.names.bucket),
            rows=DynamoRows(clients["dynamodb"]),
            secrets=SecretsManager(clients["secretsmanager"], key),
        )


@asynccontextmanager
async def open_clients(settings: Settings, *services: str) -> AsyncIterator[dict[str, Client]]:
    """Clients of the services named, by name."""
    async with AsyncExitStack() as stack:
        clients = {}
        with translated("Connecting", settings.endpoint_url):
            session = _session(settings)
            for service in services:
                client = await stack.enter_async_context(session.create_client(service, **_options(settings, service)))
                clients[service] = Client(service, client)
        yield clients


def _session(settings: Settings) -> Any:
    # With explicit keys nothing of the user's AWS configuration applies: not a profile, not a file, not a variable.
    own = AioSession(profile=settings.profile) if settings.access_key is None else AioSession(session_vars=_UNAWARE)
    own.register_component("data_loader", _MODELS)
    return own


def _options(settings: Settings, service: str) -> dict[str, Any]:
    # The services above repeat what is retryable, with waits of their own; the library repeats what a moment mends.
    # Nothing for Kinesis: to repeat a PutRecords is the publisher's decision, a read the reader's.
    attempts = 1 if service == "kinesis" else settings.aws_attempts_max
    return {
        "region_name": settings.region,
        "endpoint_url": settings.endpoint_url,
        "aws_access_key_id": settings.access_key,
        "aws_secret_access_key": settings.secret_key,
        "aws_session_token": settings.session_token,
        "config": AioConfig(
            connect_timeout=settings.aws_connect_s,
            read_timeout=settings.aws_read_s,
            max_pool_connections=settings.aws_connections_max,
            retries={"mode": "standard", "total_max_attempts": attempts},
            s3={"addressing_style": "path"} if settings.emulator else {},
            proxies={} if settings.emulator else None,  # no proxy stands between us and an emulator
            user_agent_extra="avesa",
        ),
    }
