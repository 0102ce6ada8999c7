"""One client of one AWS service, whose errors are ours."""

from collections.abc import AsyncGenerator
from typing import Any

from services.contracts.errors import RetryableError
from services.runtime.aws_errors import translated


class Answer(dict[str, Any]):
    """An answer of AWS. The library takes any page of HTML for one with nothing in it; what must be there tells."""

    def __missing__(self, key: str) -> Any:
        raise RetryableError(f"the answer has no {key}: it is not from AWS", code="bad_answer")


class Client:
    """Calls go through here, so that no adapter ever sees a library's error."""

    def __init__(self, service: str, client: Any) -> None:
        self.service = service
        self._client = client

    @property
    def endpoint_url(self) -> str:
        return str(self._client.meta.endpoint_url)

    async def call(self, operation: str, subject: str, **arguments: Any) -> Answer:
        """One request. `operation` as the library spells it (`put_records`), `subject` what it is about."""
        with translated(f"{operation} on {subject}", self.endpoint_url):
            return Answer(await getattr(self._client, operation)(**arguments))

    async def read_body(self, operation: str, subject: str, **arguments: Any) -> bytes:
        """One request whose answer streams, read to its end."""
        with translated(f"{operation} on {subject}", self.endpoint_url):
            answer = await getattr(self._client, operation)(**arguments)
            async with answer["Body"] as body:
                data: bytes = await body.read()
            return data

    async def events(self, operation: str, subject: str, field: str, **arguments: Any) -> AsyncGenerator[Answer, None]:
        """One request whose answer is a stream of events, in `field`; the connection ends with the iteration."""
        with translated(f"{operation} on {subject}", self.endpoint_url):
            answer = await getattr(self._client, operation)(**arguments)
            stream = Answer(answer)[field]
            try:
                async for event in stream:
                    yield Answer(event)
            finally:
                stream.close()
