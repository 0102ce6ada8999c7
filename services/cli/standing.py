"""How a connected service and its endpoints stand, from the rows that the extractor keeps. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from services.cli.stages import Life
from services.contracts.errors import UsageError
from services.contracts.integration import Integration
from services.contracts.times import UtcTime, seconds_between
from services.extractor.freshness import promised_s, told
from services.extractor.marks import Marks
from services.extractor.plan import Spec, specs
from services.extractor.schedule import stretched, tuned
from services.extractor.summary import NOT_AVAILABLE

if TYPE_CHECKING:  # brings asyncio along, which `avesa --help` does without
    from services.extractor.tenants import TenantService

MARKS_SAVED_S: Final = 300.0  # marks that move over nothing new are saved so often: extractor/ledger.py, IDLE_SAVE_S
SLACK_S: Final = 300.0  # for a slow vendor, a throttled one, a worker that takes over
STARTING_S: Final = 60.0  # until a running extractor has noticed a new service: extractor/service.py, SCAN_S
READING_S: Final = 900.0  # a long pass saves every half minute; so long without is no pass

TOLD_S: Final = 60.0  # when endpoints were read is told with the signs of life of who reads them

State = Literal[
    "up to date", "reading", "not read yet", "behind", "failing", "not available", "off",
    "paused", "reconnect needed", "stopped", "no mapping",
]  # fmt: skip
# The state of a service is the first of these that one of its endpoints is in.
WORST_FIRST: Final[tuple[State, ...]] = (
    "failing", "behind", "not read yet", "reading", "up to date", "not available", "off",
)  # fmt: skip
Row = Mapping[str, Any]


class EndpointStanding(msgspec.Struct, frozen=True, tag_field="kind", tag="endpoint"):
    """One endpoint. It was read to its end at `read_at` or later; `tried_at` is when it last failed.

    Units:  `promised_s` is its interval and the lag the vendor is known to have, `actual_s` the age of its last
            completed read. Where that is more than was promised, `why_late` says why, as far as is known.
    """

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
    promised_s: float = 0.0
    actual_s: float | None = None
    why_late: str = ""

    @property
    def lateness(self) -> float:
        """How many times as old as promised: what is read never is the latest."""
        if self.state in ("paused", "off", "not available"):
            return -1.0
        return float("inf") if self.actual_s is None else self.actual_s / self.promised_s


class ServiceStanding(msgspec.Struct, frozen=True, tag_field="kind", tag="service"):
    """One connected service. `read_at` and `swept_at` are the oldest of its endpoints'; `owner` reads it now;
    `starting`: connected, changed or resumed so lately that a running extractor may not have noticed; `worst` is the
    endpoint that is latest, measured by what was promised."""

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
    worst: EndpointStanding | None = None

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
        wanted = tuned(integration, row, interval_s) if integration is not None else None
        known = specs(wanted) if wanted is not None else {}
    except UsageError:
        known = {}
    watched = _Watched(row, lease, now)
    found = [_endpoint(watched, spec, marked.get(name, {})) for name, spec in known.items()]
    found += [
        EndpointStanding(row.tenant_id, row.service, name, "off")
        for name in _switched_off(row, integration)
        if name not in known  # what others hang from is read all the same
    ]
    endpoints = tuple(sorted(found, key=lambda one: -one.lateness))
    owner = lease.get("owner")
    reads = [one.read_at for one in endpoints if one.state not in ("off", "not available")]
    sweeps = [one.swept_at for one in endpoints if one.swept_at]
    service = ServiceStanding(
        row.tenant_id,
        row.service,
        row.company_name,
        _state(row, endpoints, lists_customers=integration is not None and integration.customers is not None),
        dict(Counter[str](one.state for one in endpoints)),
        min((at for at in reads if at), default=None) if all(reads) else None,
        min(sweeps, default=None),
        owner,
        int(lease.get("epoch", 0)),
        life,
        row.status_what if row.refused else "",
        row.status_at or None if row.refused else None,
        _within(STARTING_S, row.updated_at, now),
        endpoints[0] if endpoints else None,
    )
    return service, endpoints


def _state(row: "TenantService", endpoints: Iterable[EndpointStanding], *, lists_customers: bool) -> State:
    if not row.enabled:
        return "paused"
    if row.status in ("reconnect needed", "stopped"):
        return row.status
    found = {one.state for one in endpoints}
    if not found and row.connect_all and lists_customers:
        return "up to date"  # a partner's own service may have nothing to read but its customers
    return next((state for state in WORST_FIRST if state in found), "no mapping")


def _switched_off(row: "TenantService", integration: Integration | None) -> Iterable[str]:
    """What this tenant does not want and would have by the mapping file."""
    known = integration.endpoints if integration is not None else {}
    return (name for name, asked in row.endpoints.items() if asked.enabled is False and name in known)


class _Watched:
    """What is known of all endpoints of a service together: its row, and what its owner told last."""

    def __init__(self, row: "TenantService", lease: Row, now: UtcTime) -> None:
        self.row, self.now = row, now
        self.owned = lease.get("owner") is not None
        self._told = told(lease)

    @property
    def factor(self) -> float:
        return self._told.factor

    def read_at(self, endpoint: str, marked: UtcTime | None) -> tuple[UtcTime | None, bool]:
        """When it was last read, and whether its owner says so: marks are saved now and then only."""
        at = self._told.read_at.get(endpoint)
        if at is None:
            return marked, False
        return (at, True) if marked is None or at > marked else (marked, True)


def _endpoint(watched: _Watched, spec: Spec, held: Row) -> EndpointStanding:
    row, now = watched.row, watched.now
    try:
        marks = msgspec.convert(held.get("marks") or {}, Marks)
    except msgspec.ValidationError:
        marks = Marks()  # of another release: read again from the start
    read_at, told = watched.read_at(spec.name, marks.fresh)
    every_s = spec.endpoint.interval_s
    felt_s = stretched(every_s, watched.factor)
    promise_s = promised_s(spec)
    actual_s = max(0.0, seconds_between(read_at, now)) if read_at is not None else None
    untold_s = TOLD_S if told else MARKS_SAVED_S
    late = actual_s is not None and actual_s > 2 * felt_s + untold_s + SLACK_S
    # A pass under way saves now and then; the first after a change may be about to.
    passing = _within(READING_S, held.get("saved_at"), now) and (marks.walk is not None or marks.fresh is None)
    reading = passing or (watched.owned and _within(READING_S, row.updated_at, now))
    code = str(held.get("failed_code") or "")
    state: State = "up to date"
    if not row.enabled:
        state = "paused"
    elif code:
        state = "not available" if code == NOT_AVAILABLE else "failing"
    elif late or read_at is None:
        state = "reading" if reading else "behind" if late else "not read yet"
    overdue = actual_s is None or actual_s > promise_s + untold_s
    return EndpointStanding(
        row.tenant_id,
        row.service,
        spec.name,
        state,
        read_at,
        marks.swept_at,
        code,
        str(held.get("failed_what") or ""),
        held.get("failed_at"),
        late,
        _sweep_late(spec, marks, now),
        promise_s,
        actual_s,
        _why_late(watched, state, code, felt_s / every_s) if overdue else "",
    )


def _why_late(watched: _Watched, state: State, code: str, felt: float) -> str:
    if state in ("paused", "not available"):
        return state
    if watched.row.refused:
        return watched.row.status
    if code:
        return f"failing: {code}"
    if not watched.owned:
        return "nobody reads it"
    if felt > 1.0:
        return f"the vendor's budget stretches it {felt:.1f} times"
    return "being read" if state == "reading" else "its reader is slow"


def _within(seconds: float, then: UtcTime | None, now: UtcTime) -> bool:
    return bool(then) and seconds_between(str(then), now) <= seconds


def _sweep_late(spec: Spec, marks: Marks, now: UtcTime) -> bool:
    if spec.sweep is None or marks.swept_at is None:
        return False
    return seconds_between(marks.swept_at, now) > 2 * spec.sweep.interval_s + SLACK_S
