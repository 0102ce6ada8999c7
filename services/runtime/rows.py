"""`Rows` over DynamoDB."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from services.contracts.ports import Key, Row, Value
from services.runtime.attributes import from_item, to_attribute, to_item
from services.runtime.aws_client import Client


class DynamoRows:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, table: str, key: Key) -> Row | None:
        answer = await self._client.call("get_item", table, TableName=table, Key=to_item(key), ConsistentRead=True)
        return from_item(answer["Item"]) if "Item" in answer else None

    async def write(
        self, table: str, key: Key, values: Mapping[str, Value], expect: Mapping[str, Value] | None = None
    ) -> None:
        request = _Request()
        sets = [f"{request.name(name)} = {request.value(value)}" for name, value in values.items() if value is not None]
        removes = [request.name(name) for name, value in values.items() if value is None]
        update = " ".join(
            f"{verb} {', '.join(clauses)}" for verb, clauses in (("SET", sets), ("REMOVE", removes)) if clauses
        )
        if update:
            request.arguments["UpdateExpression"] = update
        request.expect(expect)
        await self._client.call("update_item", table, TableName=table, Key=to_item(key), **request.arguments)

    async def delete(self, table: str, key: Key, expect: Mapping[str, Value] | None = None) -> None:
        request = _Request()
        request.expect(expect)
        await self._client.call("delete_item", table, TableName=table, Key=to_item(key), **request.arguments)

    async def query(self, table: str, key: Key) -> AsyncIterator[Row]:
        request = _Request()
        request.arguments["KeyConditionExpression"] = request.equal(key)
        async for row in self._pages("query", table, request.arguments):
            yield row

    async def scan(self, table: str) -> AsyncIterator[Row]:
        async for row in self._pages("scan", table, {}):
            yield row

    async def _pages(self, operation: str, table: str, arguments: Mapping[str, Any]) -> AsyncIterator[Row]:
        more: dict[str, Any] = {}
        while True:
            page = await self._client.call(operation, table, TableName=table, ConsistentRead=True, **arguments, **more)
            for item in page["Items"]:
                yield from_item(item)
            if not page.get("LastEvaluatedKey"):
                return
            more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


class _Request:
    """Expressions of one request; every name and value goes by a placeholder, so that no word is reserved."""

    def __init__(self) -> None:
        self.arguments: dict[str, Any] = {}

    def name(self, name: str) -> str:
        return self._placeholder("ExpressionAttributeNames", "#", name)

    def value(self, value: Value) -> str:
        return self._placeholder("ExpressionAttributeValues", ":", to_attribute(value))

    def equal(self, values: Mapping[str, Value]) -> str:
        return " AND ".join(
            f"attribute_not_exists({self.name(name)})" if value is None else f"{self.name(name)} = {self.value(value)}"
            for name, value in values.items()
        )

    def expect(self, values: Mapping[str, Value] | None) -> None:
        if values:
            self.arguments["ConditionExpression"] = self.equal(values)

    def _placeholder(self, kind: str, sign: str, meaning: Any) -> str:
        held = self.arguments.setdefault(kind, {})
        placeholder = f"{sign}{len(held)}"
        held[placeholder] = meaning
        return placeholder
