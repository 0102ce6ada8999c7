"""A partner's customers come and go by themselves."""

from msgspec.structs import replace

from services.contracts.log import CustomersConnected, Event
from services.contracts.names import Names
from services.contracts.times import shifted
from services.extractor.customers import Customer
from services.extractor.partners import GONE, Plan, connect_customers, plan_customers
from services.extractor.tenants import TenantService, services_of
from services.runtime.provision import table_keys
from tests.fakes import FakeClock, MemoryRows, MemoryStreams
from tests.runtimes import fake_runtime

NOW = "2026-01-31T12:00:00.000000Z"
NAMES = Names("test")
PARTNER = TenantService("acme", "desk", company_name="Acme", secret="one/secret", connect_all=True)
CONTOSO, FABRIKAM, INITECH = Customer("7", "Contoso"), Customer("8", "Fabrikam"), Customer("9", "Initech")


def rows_after(plan: Plan, *rows: TenantService) -> list[TenantService]:
    changed = {row.service: row for row in (*plan.new, *plan.back, *plan.gone)}
    return [changed.pop(row.service, row) for row in rows] + list(changed.values())


def connected(*customers: Customer) -> list[TenantService]:
    return rows_after(plan_customers(PARTNER, customers, [PARTNER], (), NOW), PARTNER)


def named(rows: tuple[TenantService, ...]) -> list[str]:
    return [row.service for row in rows]


def test_every_customer_becomes_a_service_on_the_partner_s_credential() -> None:
    plan = plan_customers(PARTNER, [CONTOSO, FABRIKAM], [PARTNER], (), NOW)
    assert named(plan.new) == ["desk:contoso", "desk:fabrikam"]
    contoso = plan.new[0]
    assert (contoso.tenant_id, contoso.account_id, contoso.partner, contoso.secret) == (
        "acme",
        "7",
        "desk",
        "one/secret",
    )
    assert (contoso.enabled, contoso.created_at, contoso.connect_all) == (True, NOW, False)


def test_the_same_list_again_changes_nothing_and_a_new_title_neither() -> None:
    rows = connected(CONTOSO, FABRIKAM)
    assert plan_customers(PARTNER, [CONTOSO, FABRIKAM], rows, (), NOW) == Plan()
    assert plan_customers(PARTNER, [replace(CONTOSO, title="Contoso Ltd"), FABRIKAM], rows, (), NOW) == Plan()


def test_two_customers_of_one_name_become_two_services() -> None:
    twin = Customer("77", "Contoso")
    first, second = plan_customers(PARTNER, [CONTOSO, twin], [PARTNER], (), NOW).new
    assert first.service != second.service
    other = TenantService("acme", "desk:contoso")  # connected by hand
    assert plan_customers(PARTNER, [CONTOSO], [PARTNER, other], (), NOW).new[0].service != "desk:contoso"


def test_who_is_gone_is_paused_at_the_second_list_and_goes_on_when_it_comes_back() -> None:
    rows = connected(CONTOSO, FABRIKAM)
    first = plan_customers(PARTNER, [FABRIKAM], rows, (), NOW)
    assert (named(first.gone), first.missing) == ([], frozenset({"7"}))
    second = plan_customers(PARTNER, [FABRIKAM], rows, first.missing, NOW)
    assert named(second.gone) == ["desk:contoso"]
    rows = rows_after(second, *rows)
    paused = next(row for row in rows if row.account_id == "7")
    assert (paused.enabled, paused.status, paused.status_what) == (False, "paused", GONE)
    assert plan_customers(PARTNER, [FABRIKAM], rows, second.missing, NOW).missing == frozenset()
    back = plan_customers(PARTNER, [CONTOSO, FABRIKAM], rows, (), NOW)
    assert (named(back.new), named(back.back)) == ([], ["desk:contoso"])
    assert (back.back[0].enabled, back.back[0].status) == (True, "ok")


def test_what_a_person_paused_stays_paused() -> None:
    rows = [replace(row, enabled=row.service != "desk:contoso") for row in connected(CONTOSO, FABRIKAM)]
    assert plan_customers(PARTNER, [CONTOSO, FABRIKAM], rows, (), NOW) == Plan()


def test_a_list_without_any_customer_pauses_nobody() -> None:
    rows = connected(CONTOSO, FABRIKAM)
    for missed in (frozenset[str](), frozenset({"7", "8"})):
        plan = plan_customers(PARTNER, [], rows, missed, NOW)
        assert (plan.gone, plan.missing) == ((), missed)


def test_services_connected_by_hand_are_nobody_s_customers() -> None:
    rows = [PARTNER, TenantService("acme", "desk:own", account_id="5"), TenantService("acme", "mail", partner="other")]
    assert plan_customers(PARTNER, [CONTOSO], rows, {"5"}, NOW).gone == ()


async def test_rows_follow_the_lists_and_nothing_is_written_twice() -> None:
    clock, rows, said = FakeClock(NOW), MemoryRows(table_keys(NAMES)), list[Event]()
    runtime = fake_runtime(NAMES, clock, MemoryStreams(clock), rows, emit=said.append)
    missed = await connect_customers(runtime, PARTNER, [CONTOSO, FABRIKAM], ())
    for listed in ([FABRIKAM, INITECH], [FABRIKAM, INITECH], [FABRIKAM, INITECH]):
        missed = await connect_customers(runtime, PARTNER, listed, missed)
    found = {row.service: row for row in (await services_of(rows, NAMES, "acme")).services}
    assert {name: row.enabled for name, row in found.items()} == {
        "desk:contoso": False,
        "desk:fabrikam": True,
        "desk:initech": True,
    }
    assert found["desk:initech"].secret == "one/secret"
    changes = [(one.new, one.back, one.gone) for one in said if isinstance(one, CustomersConnected)]
    assert changes == [(2, 0, 0), (1, 0, 0), (0, 0, 1)]


async def test_who_is_connected_by_somebody_else_meanwhile_is_left_alone() -> None:
    clock, rows = FakeClock(NOW), MemoryRows(table_keys(NAMES))
    runtime = fake_runtime(NAMES, clock, MemoryStreams(clock), rows)
    key = {"tenant_id": "acme", "service": "desk:contoso"}

    async def meanwhile(call: object) -> None:
        rows.before = nothing
        await rows.write(NAMES.tenant_services, key, {"enabled": False, "created_at": shifted(NOW, seconds=-1)})

    async def nothing(_: object) -> None: ...

    async def arm(call: object) -> None:
        rows.after, rows.before = nothing, meanwhile

    rows.after = arm
    await connect_customers(runtime, PARTNER, [CONTOSO], ())
    assert (await rows.get(NAMES.tenant_services, key) or {})["enabled"] is False
