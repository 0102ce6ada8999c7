"""`Objects` over one S3 bucket."""

from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import Any, Final

from services.contracts.errors import ConflictError, FatalError, NotFoundError, RetryableError
from services.contracts.ports import ObjectInfo
from services.runtime.aws_client import Client

DELETE_MAX: Final = 1_000  # DeleteObjects: AWS API reference
CREATE_ATTEMPTS: Final = 5


class S3Objects:
    def __init__(self, client: Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    async def get(self, key: str) -> bytes:
        return await self._client.read_body("get_object", self._name(key), Bucket=self._bucket, Key=key)

    async def put(self, key: str, data: bytes) -> None:
        await self._client.call("put_object", self._name(key), Bucket=self._bucket, Key=key, Body=data)

    async def create(self, key: str, data: bytes) -> None:
        for _ in range(CREATE_ATTEMPTS):
            try:
                await self._client.call(
                    "put_object", self._name(key), Bucket=self._bucket, Key=key, Body=data, IfNoneMatch="*"
                )
                return
            except ConflictError as err:  # 412: there is one. Ours, from an answer that was lost?
                try:
                    if await self.get(key) == data:
                        return
                except NotFoundError:
                    continue  # deleted in between
                raise ConflictError(f"{self._name(key)} exists with other content") from err
            except RetryableError as err:  # 409: another write of this name is under way, "retry the upload"
                if err.code != "conflict":
                    raise
        raise RetryableError(f"{self._name(key)} is being written by others", code="conflict")

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        more: dict[str, Any] = {}
        while True:
            page = await self._client.call(
                "list_objects_v2", self._name(prefix), Bucket=self._bucket, Prefix=prefix, **more
            )
            for entry in page.get("Contents", ()):
                yield ObjectInfo(entry["Key"], entry["Size"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def delete(self, keys: Iterable[str]) -> None:
        rest = iter(keys)
        while batch := [{"Key": key} for key in islice(rest, DELETE_MAX)]:
            answer = await self._client.call(
                "delete_objects", self._bucket, Bucket=self._bucket, Delete={"Objects": batch, "Quiet": True}
            )
            if failed := answer.get("Errors"):
                code = failed[0].get("Code", "")
                what = f"{self._name(failed[0].get('Key', ''))} was not deleted: {code}"
                raise FatalError(what, code="forbidden") if code == "AccessDenied" else RetryableError(what)

    def _name(self, key: str) -> str:
        return f"s3://{self._bucket}/{key}"
