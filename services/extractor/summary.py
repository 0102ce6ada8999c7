"""What a run did, endpoint by endpoint."""

import msgspec


class EndpointSummary(msgspec.Struct):
    """One endpoint of one tenant's service. `code` is empty where all went well; endpoint `*`: none was reached."""

    tenant_id: str
    service: str
    endpoint: str
    read: int = 0
    published: int = 0
    deleted: int = 0
    rejected: int = 0
    calls: int = 0
    code: str = ""
    what: str = ""


class Summary(msgspec.Struct, frozen=True):
    """All of a run. `complete`: every endpoint was read to its end."""

    endpoints: tuple[EndpointSummary, ...] = ()

    @property
    def complete(self) -> bool:
        return not any(endpoint.code for endpoint in self.endpoints)

    @property
    def failed(self) -> tuple[EndpointSummary, ...]:
        return tuple(endpoint for endpoint in self.endpoints if endpoint.code)

    @property
    def published(self) -> int:
        return sum(endpoint.published for endpoint in self.endpoints)

    @property
    def deleted(self) -> int:
        return sum(endpoint.deleted for endpoint in self.endpoints)
