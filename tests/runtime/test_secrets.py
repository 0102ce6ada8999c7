"""With which key a secret is made."""

from typing import Any

from services.contracts.errors import NotFoundError
from services.contracts.names import Names
from services.runtime.secrets import SecretsManager


class Asked:
    """A client to an account without secrets; keeps what it was asked."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    async def call(self, operation: str, subject: str, **arguments: Any) -> dict[str, Any]:
        if operation != "create_secret":
            raise NotFoundError(f"no {subject}")
        self.made.append(arguments)
        return {}


async def test_a_secret_is_made_with_the_key_of_its_environment() -> None:
    client = Asked()
    await SecretsManager(client, Names("prod").secrets_key).put("avesa/prod/acme/desk", {"key": "value"})  # type: ignore[arg-type]
    assert client.made == [
        {
            "Name": "avesa/prod/acme/desk",
            "SecretString": '{"key":"value"}',
            "KmsKeyId": "alias/avesa-secrets-prod",
        }
    ]


async def test_an_emulator_has_no_key_to_name() -> None:
    client = Asked()
    await SecretsManager(client).put("avesa/dev/acme/desk", {"key": "value"})  # type: ignore[arg-type]
    assert "KmsKeyId" not in client.made[0]
