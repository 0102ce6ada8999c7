"""What a run did, endpoint by endpoint."""

from typing import Final

import msgspec

# The customer does not have what this endpoint lists: nothing is missing, and nobody needs to act.
NOT_AVAILABLE: Final = "not_available"


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
    """All of a run. `complete`: every endpoint that the customer has was read to its end."""

    endpoints: tuple[EndpointSummary, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.failed

    @property
    def failed(self) -> tuple[EndpointSummary, ...]:
        return tuple(endpoint for endpoint in self.endpoints if endpoint.code not in ("", NOT_AVAILABLE))

    @property
    def published(self) -> int:
        return sum(endpoint.published for endpoint in self.endpoints)

    @property
    def deleted(self) -> int:
        return sum(endpoint.deleted for endpoint in self.endpoints)
