"""The contract of `Secrets`."""

import pytest

from services.contracts.errors import NotFoundError
from tests.runtime.ports.worlds import World


async def test_a_secret_is_what_was_put_last(world: World) -> None:
    name = world.names.secret("acme", "connectwise")
    await world.secrets.put(name, {"public_key": "a", "private_key": "ü"})
    await world.secrets.put(name, {"public_key": "b"})
    assert await world.secrets.get(name) == {"public_key": "b"}


async def test_a_deleted_secret_is_gone_and_may_be_put_again(world: World) -> None:
    name = world.names.secret("acme", "microsoft_365:contoso")
    await world.secrets.put(name, {"token": "a"})
    await world.secrets.delete(name)
    with pytest.raises(NotFoundError):
        await world.secrets.get(name)
    await world.secrets.delete(name)
    await world.secrets.put(name, {"token": "b"})
    assert await world.secrets.get(name) == {"token": "b"}
