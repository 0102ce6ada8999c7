"""A partner's customers become services of their own, without anybody connecting each.

Once an hour its list is read: who is new gets a row, who is gone for two lists in a row is paused, and goes on should
it come back. Nothing is deleted.
"""

import contextlib
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from services.contracts.errors import ConflictError
from services.contracts.log import CustomersConnected
from services.contracts.ports import Value
from services.contracts.times import UtcTime
from services.extractor.customers import Customer, instance_of
from services.extractor.tenants import TenantService, services_of
from services.runtime.runtime import Runtime

CUSTOMERS_S: Final = 3_600.0
GONE: Final = "it is no longer among the partner's customers"


class Plan(msgspec.Struct, frozen=True):
    """What a list of customers changes: rows as they shall be. `missing` are the accounts not on it, for the next."""

    new: tuple[TenantService, ...] = ()
    back: tuple[TenantService, ...] = ()
    gone: tuple[TenantService, ...] = ()
    missing: frozenset[str] = frozenset()


def plan_customers(
    partner: TenantService,
    listed: Sequence[Customer],
    rows: Iterable[TenantService],
    missed: Collection[str],
    now: UtcTime,
) -> Plan:
    """What is to be done about the customers `listed` now; doing it twice changes nothing.

    Shape:  `rows` are all services of the partner's tenant, `missed` the accounts that the list before this one lacked.
            A list without any customer is believed to be a fault of the vendor's. What a person paused stays so.
    Errors: RejectedError `conflict` for customers that no name tells apart.
    """
    rows = list(rows)
    mine = {row.account_id: row for row in rows if row.partner == partner.service}
    there = {customer.id for customer in listed}
    taken = {row.service for row in rows}
    new: list[TenantService] = []
    for customer in listed:
        if customer.id not in mine:
            service = instance_of(partner.service, customer, taken)
            taken.add(service)
            new.append(_row(partner, service, customer.id, now))
    paused = {account for account, row in mine.items() if not row.enabled and row.status == "paused"}
    back = [mine[account] for account in sorted(paused & there)]
    if not there:
        return Plan(missing=frozenset(missed))
    missing = frozenset(account for account, row in mine.items() if row.enabled and account not in there)
    gone = [mine[account] for account in sorted(missing & set(missed))]
    return Plan(
        tuple(new),
        tuple(replace(row, enabled=True, status="ok", status_what="", status_at=now, updated_at=now) for row in back),
        tuple(replace(row, enabled=False, status="paused", status_what=GONE, status_at=now) for row in gone),
        missing,
    )


def _row(partner: TenantService, service: str, account_id: str, now: UtcTime) -> TenantService:
    return TenantService(
        partner.tenant_id,
        service,
        company_name=partner.company_name,
        secret=partner.secret,
        created_at=now,
        updated_at=now,
        account_id=account_id,
        partner=partner.service,
        tier=partner.tier,
    )


async def connect_customers(
    runtime: Runtime, partner: TenantService, listed: Sequence[Customer], missed: Collection[str]
) -> frozenset[str]:
    """Bring the rows in line with a list; the accounts it lacks. Who connects or pauses the same meanwhile wins.

    Errors: RetryableError; RejectedError as `plan_customers`.
    """
    names = runtime.names
    partner = replace(partner, secret=partner.secret or names.secret(partner.tenant_id, partner.service))
    rows = (await services_of(runtime.rows, names, partner.tenant_id)).services
    plan = plan_customers(partner, listed, rows, missed, runtime.clock.now())
    for row in plan.new:
        values: dict[str, Value] = {
            "company_name": row.company_name,
            "enabled": True,
            "secret": row.secret,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
            "account_id": row.account_id,
            "partner": row.partner,
            "tier": row.tier,
        }
        await _write(runtime, row, values, {"tenant_id": None})
    for row in (*plan.back, *plan.gone):
        switched: dict[str, Value] = {
            "enabled": row.enabled,
            "status": row.status,
            "status_what": row.status_what or None,
            "status_at": row.status_at,
            "updated_at": row.updated_at,
        }
        await _write(runtime, row, switched, {"tenant_id": row.tenant_id, "enabled": not row.enabled})
    if plan.new or plan.back or plan.gone:
        runtime.emit(
            CustomersConnected(
                tenant_id=partner.tenant_id,
                service=partner.service,
                new=len(plan.new),
                back=len(plan.back),
                gone=len(plan.gone),
            )
        )
    return plan.missing


async def _write(runtime: Runtime, row: TenantService, values: dict[str, Value], expect: dict[str, Value]) -> None:
    key = {"tenant_id": row.tenant_id, "service": row.service}
    with contextlib.suppress(ConflictError):
        await runtime.rows.write(runtime.names.tenant_services, key, values, expect)
