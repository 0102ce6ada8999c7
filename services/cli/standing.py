"""How a connected service and its endpoints stand, from the rows that the extractor keeps. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from services.cli.stages import Life
from services.contracts.errors import UsageError
from services.contracts.integration import Integration
from services.contracts.times import UtcTime, seconds_between
from services.extractor.marks import Marks
from services.extractor.plan import Spec, specs

if TYPE_CHECKING:  # brings asyncio along, which `avesa --help` does without
    from services.extractor.tenants import TenantService

MARKS_SAVED_S: Final = 300.0  # marks that move over nothing new are saved so often: extractor/ledger.py, IDLE_SAVE_S
SLACK_S: Final = 300.0  # for a slow vendor, a throttled one, a worker that takes over
STARTING_S: Final = 60.0  # until a running extractor has noticed a new service: extractor/service.py, SCAN_S
READING_S: Final = 900.0  # a long pass saves every half minute; so long without is no pass

State = Literal[
    "up to date", "reading", "not read yet", "behind", "failing", "paused", "reconnect needed", "no mapping"
]
# The state of a service is the first of these that one of its endpoints is in.
WORST_FIRST: Final[tuple[State, ...]] = ("failing", "behind", "not read yet", "reading", "up to date")
Row = Mapping[str, Any]


class EndpointStanding(msgspec.Struct, frozen=True, tag_field="kind", tag="endpoint"):
    """One endpoint. It was read to its end at `read_at` or later; `tried_at` is when it last failed."""

    tenant_id: str
    service: str
    endpoint: str
    state: State
    read_at: UtcTime | None = None
    swept_at: UtcTime | None = None
    code: str = ""
    what: str = ""
    tried_at: UtcTime | None = None
    late: bool = False
    sweep_late: bool = False


class ServiceStanding(msgspec.Struct, frozen=True, tag_field="kind", tag="service"):
    """One connected service. `read_at` and `swept_at` are the oldest of its endpoints'; `owner` reads it now;
    `starting`: connected, changed or resumed so lately that a running extractor may not have noticed."""

    tenant_id: str
    service: str
    company_name: str
    state: State
    endpoints: dict[str, int]
    read_at: UtcTime | None
    swept_at: UtcTime | None
    owner: str | None
    epoch: int
    life: Life | None
    why: str = ""
    refused_at: UtcTime | None = None
    starting: bool = False

    @property
    def name(self) -> str:
        return f"{self.tenant_id} {self.service}"

    @property
    def options(self) -> str:
        return f"--tenant-id {self.tenant_id} --service {self.service}"


Read = tuple[ServiceStanding, tuple[EndpointStanding, ...]]


# -- one service ------------------------------------------------------------------------------------------------------
def service_standing(
    row: "TenantService",
    integration: Integration | None,
    marked: Mapping[str, Row],
    lease: Row,
    interval_s: float | None,
    now: UtcTime,
    life: Life | None = None,
) -> Read:
    """How a connected service and each of its endpoints stand.

    `marked` are its LastUpdated rows by endpoint; `interval_s` is how often the fleet reads where the row does not say.
    """
    try:
        known = specs(integration) if integration is not None else {}
    except UsageError:
        known = {}
    owner = lease.get("owner")
    endpoints = tuple(
        _endpoint(row, spec, marked.get(name, {}), row.interval_s or interval_s, owner is not None, now)
        for name, spec in known.items()
    )
    reads, sweeps = [one.read_at for one in endpoints], [one.swept_at for one in endpoints if one.swept_at]
    service = ServiceStanding(
        row.tenant_id,
        row.service,
        row.company_name,
        _state(row, endpoints),
        dict(Counter[str](one.state for one in endpoints)),
        min((at for at in reads if at), default=None) if all(reads) else None,
        min(sweeps, default=None),
        owner,
        int(lease.get("epoch", 0)),
        life,
        row.status_what if row.status == "reconnect needed" else "",
        row.status_at or None if row.status == "reconnect needed" else None,
        _within(STARTING_S, row.updated_at, now),
    )
    return service, endpoints


def _state(row: "TenantService", endpoints: Iterable[EndpointStanding]) -> State:
    if not row.enabled:
        return "paused"
    if row.status == "reconnect needed":
        return "reconnect needed"
    found = {one.state for one in endpoints}
    return next((state for state in WORST_FIRST if state in found), "no mapping")


def _endpoint(
    row: "TenantService", spec: Spec, held: Row, interval_s: float | None, owned: bool, now: UtcTime
) -> EndpointStanding:
    try:
        marks = msgspec.convert(held.get("marks") or {}, Marks)
    except msgspec.ValidationError:
        marks = Marks()  # of another release: read again from the start
    every_s = interval_s or spec.endpoint.interval_s
    late = marks.fresh is not None and seconds_between(marks.fresh, now) > 2 * every_s + MARKS_SAVED_S + SLACK_S
    # A pass under way saves now and then; the first after a change may be about to.
    passing = _within(READING_S, held.get("saved_at"), now) and (marks.walk is not None or marks.fresh is None)
    reading = passing or (owned and _within(READING_S, row.updated_at, now))
    code = str(held.get("failed_code") or "")
    state: State = "up to date"
    if not row.enabled:
        state = "paused"
    elif code:
        state = "failing"
    elif late or marks.fresh is None:
        state = "reading" if reading else "behind" if late else "not read yet"
    return EndpointStanding(
        row.tenant_id,
        row.service,
        spec.name,
        state,
        marks.fresh,
        marks.swept_at,
        code,
        str(held.get("failed_what") or ""),
        held.get("failed_at"),
        late,
        _sweep_late(spec, marks, now),
    )


def _within(seconds: float, then: UtcTime | None, now: UtcTime) -> bool:
    return bool(then) and seconds_between(str(then), now) <= seconds


def _sweep_late(spec: Spec, marks: Marks, now: UtcTime) -> bool:
    if spec.sweep is None or marks.swept_at is None:
        return False
    return seconds_between(marks.swept_at, now) > 2 * spec.sweep.interval_s + SLACK_S
