"""`Secrets` over AWS Secrets Manager."""

from collections.abc import Mapping
from typing import Final

import msgspec

from services.contracts.errors import AvesaError, ConflictError, FatalError, NotFoundError, RetryableError
from services.runtime.aws_client import Client

PUT_ATTEMPTS: Final = 3


class SecretsManager:
    """`key` encrypts the secrets made here (an alias); without one Secrets Manager takes the account's own, which
    everybody may use who may read the secret. One that exists keeps its key."""

    def __init__(self, client: Client, key: str | None = None) -> None:
        self._client = client
        self._key = {} if key is None else {"KmsKeyId": key}

    async def get(self, name: str) -> dict[str, str]:
        try:
            answer = await self._client.call("get_secret_value", name, SecretId=name)
        except FatalError as err:
            raise _deleted(err, name) from err
        try:
            return msgspec.json.decode(answer.get("SecretString") or b"", type=dict[str, str])
        except msgspec.DecodeError as err:
            remedy = "Run `avesa setup-service` again; it replaces the secret."
            raise FatalError(f"secret {name} is not a flat object of text", code="bad_value", remedy=remedy) from err

    async def put(self, name: str, values: Mapping[str, str]) -> None:
        text = msgspec.json.encode(dict(values)).decode()
        for _ in range(PUT_ATTEMPTS):
            try:
                await self._client.call("put_secret_value", name, SecretId=name, SecretString=text)
                return
            except NotFoundError:
                try:
                    await self._client.call("create_secret", name, Name=name, SecretString=text, **self._key)
                    return
                except ConflictError:
                    continue  # somebody else created it just now: replace it
            except FatalError as err:
                if not isinstance(_deleted(err, name), NotFoundError):
                    raise
                await self._client.call("restore_secret", name, SecretId=name)
        raise RetryableError(f"secret {name} is being written by others", code="conflict")

    async def delete(self, name: str) -> None:
        """At once and for good: whoever removes a service wants its credentials gone. Not there is no error."""
        try:
            await self._client.call("delete_secret", name, SecretId=name, ForceDeleteWithoutRecovery=True)
        except NotFoundError:
            return


def _deleted(err: FatalError, name: str) -> AvesaError:
    """A secret deleted by hand waits for its end and refuses all else (InvalidRequestException): it is not there."""
    if "marked for deletion" in err.what or "scheduled for deletion" in err.what:
        return NotFoundError(f"secret {name} is marked for deletion")
    return err
