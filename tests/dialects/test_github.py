"""The real extractor reads GitHub's dialect over HTTP; and the dialect itself, where a reader could be misled."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from msgspec.structs import replace

from services.contracts.integration import Integration
from services.contracts.reading import TimeWindow
from services.sandbox.vendors.access import tokens_of
from services.sandbox.vendors.dialect import Answer, Request, answered
from services.sandbox.vendors.github import API, APP_ID, CAP_FACT, DIALECT, INSTALLATION_ID, ORG, TOKEN, TOKEN_FACT
from services.sandbox.vendors.keys import PRIVATE_KEY
from services.sandbox.vendors.store import Row, Store, plain_text
from tests.dialects.described import held_against
from tests.dialects.every import integration_of
from tests.dialects.oracle import Oracle
from tests.dialects.seeds import part_of, quickened
from tests.dialects.world import World, opened

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ALERTS = ("dependabot_alerts", "code_scanning_alerts", "secret_scanning_alerts")


def reading(*endpoints: str) -> Integration:
    """The integration with small pages: these endpoints and what they need, or all."""
    integration = integration_of("github")
    return quickened(part_of(integration, Random(0), endpoints or tuple(integration.endpoints)), Random(0))


def check(world: World) -> None:
    oracle = Oracle(world.integration, world.store, world.hostility.served, world.rough)
    assert oracle.judge(world.events, world.arrivals).findings == []
    assert oracle.check_contents(world.events) == []
    assert world.vendor.astray == []


def payloads(world: World, *endpoints: str) -> list[bytes]:
    """What was published, of these endpoints or all."""
    found = [event for event in world.events if not endpoints or event.endpoint in endpoints]
    return [bytes(event.payload) for event in found if event.payload is not msgspec.UNSET]


def vendor(count: int = 6) -> Store:
    store = Store(DIALECT.collections, NOW, Random(1))
    store.populate(dict.fromkeys(store.collections, count))
    store.facts[TOKEN_FACT] = TOKEN
    return store


def asked(store: Store, path: str, *, headers: dict[str, str] | None = None, **query: str) -> Answer:
    """What the dialect answers to somebody with a personal access token."""
    told = {"authorization": f"Bearer {TOKEN}", "user-agent": "avesa", **(headers or {})}
    return answered(DIALECT, store, Request("GET", API, path, query, told, store.now))


def listed(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer
    found = msgspec.json.decode(answer.body)
    assert isinstance(found, list)
    return found


def _query(text: str) -> dict[str, Any]:
    return dict(parse_qsl(text))


def repository(store: Store) -> tuple[Row, str]:
    """One, and the path of its lists."""
    row = store.rows("repositories")[0]
    return row, f"/repos/{ORG}/{row.content['name']}"


# -- the extractor reads it -------------------------------------------------------------------------------------------
async def test_every_record_arrives_once_and_so_does_an_update_a_deletion_and_a_late_record() -> None:
    async with opened(DIALECT, reading()) as world:
        assert (await world.run_once()).complete
        assert len(world.events) == sum(len(world.store.rows(name)) for name in world.store.collections)
        issues, alerts = world.store.rows("issues"), world.store.rows("dependabot_alerts")
        world.store.update("issues", issues[0].id)
        world.store.delete("issues", issues[1].id)
        world.store.update("dependabot_alerts", alerts[0].id)
        late = world.store.create("issues", issues[0].parent, late_s=90.0)
        await world.settle()
        check(world)
        ops = [(event.endpoint, event.record_id, event.op) for event in world.events]
        assert ("issues", issues[1].id, "delete") in ops
        assert ops.count(("issues", late.id, "upsert")) == 1
        assert [ops.count((row.collection, row.id, "upsert")) for row in (issues[0], alerts[0])] == [2, 2]


async def test_a_repository_that_is_gone_takes_its_issues_along() -> None:
    async with opened(DIALECT, reading("issues", "labels")) as world:
        await world.run_once()
        gone = world.store.rows("repositories")[0]
        below = {row.id for name in ("issues", "labels") for row in world.store.rows(name, gone.id)}
        world.store.delete("repositories", gone.id)
        await world.settle()
        check(world)
        assert {event.record_id for event in world.events if event.op == "delete"} == {gone.id, *below}


async def test_commits_are_asked_for_below_repositories_that_were_pushed_to_and_no_others() -> None:
    async with opened(DIALECT, reading("commits")) as world:
        await world.run_once(sweep=False)
        await world.clock.sleep(310)
        await world.run_once(sweep=False)  # once more, for what became visible meanwhile
        target = world.store.rows("repositories")[0]
        made = world.store.create("commits", target.id)
        before = len(world.wire.sent)
        await world.clock.sleep(5)
        await world.run_once(sweep=False)
        paths = {urlsplit(request.url).path for request in world.wire.sent[before:]}
        assert {path for path in paths if path.endswith("/commits")} == {
            f"/repos/{ORG}/{target.content['name']}/commits"
        }
        assert made.id in {event.record_id for event in world.events}


async def test_an_empty_repository_has_no_commits_and_is_no_error() -> None:
    async with opened(DIALECT, reading("commits")) as world:
        world.store.create("repositories")
        assert (await world.run_once()).complete
        assert 409 in {serving.answer.status for serving in world.hostility.served}


async def test_runs_beyond_what_a_search_shows_are_read_in_shorter_windows() -> None:
    integration = reading("workflow_runs")
    runs = integration.endpoints["workflow_runs"]
    assert isinstance(runs.pagination, TimeWindow)
    small = replace(runs, pagination=replace(runs.pagination, cap=5))
    integration = replace(integration, endpoints={**integration.endpoints, "workflow_runs": small})
    async with opened(DIALECT, integration) as world:
        world.store.facts[CAP_FACT] = 5
        for repo in world.store.rows("repositories"):
            for number in range(12):
                world.store.create("workflow_runs", repo.id, stamp=world.store.now - timedelta(hours=number + 1))
        assert (await world.run_once()).complete
        check(world)


async def test_a_run_that_is_run_again_weeks_later_is_noticed() -> None:
    async with opened(DIALECT, reading("workflow_runs")) as world:
        await world.run_once()
        oldest = min(world.store.rows("workflow_runs"), key=lambda row: row.created)
        world.store.update("workflow_runs", oldest.id)
        await world.settle(sweep=False)
        check(world)


async def test_no_secret_leaves_the_extractor() -> None:
    async with opened(DIALECT, reading("secret_scanning_alerts", "repositories")) as world:
        await world.run_once()
        published = b"".join(payloads(world))
        assert b"temp_clone_token" in b"".join(serving.answer.body for serving in world.hostility.served)
        assert b"temp_clone_token" not in published
        assert b'"secret":' not in published


async def test_events_of_an_issue_do_not_change_with_the_issue() -> None:
    async with opened(DIALECT, reading("issue_events")) as world:
        await world.run_once()
        events = [msgspec.json.decode(payload) for payload in payloads(world, "issue_events")]
        assert {name for event in events for name in event["issue"]} == {"id", "number", "url"}


async def test_a_personal_token_is_taken_as_well_as_an_app() -> None:
    typed = {"org": ORG, "token": TOKEN}
    async with opened(replace(DIALECT, credentials=lambda _: typed), reading("teams")) as world:
        world.store.facts[TOKEN_FACT] = TOKEN
        assert (await world.run_once()).complete
        assert tokens_of(world.store).issued == 0
        check(world)


async def test_alerts_that_the_organization_does_not_have_are_not_available_and_all_else_goes_on() -> None:
    integration = reading("teams", *ALERTS)
    endpoints = {
        name: replace(one, path=one.path.replace("orgs/{org}", "orgs/other"))
        for name, one in integration.endpoints.items()
    }
    endpoints["teams"] = integration.endpoints["teams"]
    async with opened(DIALECT, replace(integration, endpoints=endpoints)) as world:
        summary = await world.run_once()
        assert {one.endpoint: one.code for one in summary.endpoints if one.code} == dict.fromkeys(
            ALERTS, "not_available"
        )
        assert summary.complete
        assert {event.endpoint for event in world.events} == {"teams"}


async def test_the_primary_limit_is_waited_out_until_its_reset() -> None:
    async with opened(DIALECT, reading("issues")) as world:
        world.store.facts["limit:core"] = 10
        assert (await world.run_once()).complete
        check(world)


async def test_every_answer_and_every_request_is_as_described() -> None:
    found = await held_against("github", "github.json")
    assert found.answers >= 100
    assert {name.partition("/repositories/")[0] for name in found.unknown} <= {
        "GET ",
        f"POST /app/installations/{INSTALLATION_ID}/access_tokens",
    }
    assert found.differences() == []


# -- the dialect ------------------------------------------------------------------------------------------------------
def test_a_page_may_be_short_though_the_link_leads_on() -> None:
    store = vendor(20)
    repo, path = repository(store)
    answer, numbers, sizes = asked(store, f"{path}/issues", state="all", per_page="5"), [], []
    for _ in range(20):
        page = listed(answer)
        numbers += [one["number"] for one in page]
        sizes.append(len(page))
        if "Link" not in answer.headers:
            break
        following = urlsplit(answer.headers["Link"].partition(">")[0].removeprefix("<"))
        assert following.path == f"/repositories/{repo.raw_id}/issues"
        answer = asked(store, following.path, **_query(following.query))
    assert len(numbers) == len(set(numbers)) == 20
    assert min(sizes[:-1]) < 5


def test_closed_issues_are_shown_to_who_asks_for_them() -> None:
    store = vendor(20)
    _, path = repository(store)
    assert {one["state"] for one in listed(asked(store, f"{path}/issues"))} == {"open"}
    assert {one["state"] for one in listed(asked(store, f"{path}/issues", state="all"))} == {"open", "closed"}


def test_lists_are_sorted_as_asked() -> None:
    store = vendor(20)
    _, path = repository(store)
    for sort, field in (("created", "created_at"), ("updated", "updated_at")):
        for direction in ("asc", "desc"):
            page = listed(asked(store, f"{path}/pulls", state="all", sort=sort, direction=direction, per_page="100"))
            stamps = [one[field] for one in page]
            assert stamps == sorted(stamps, reverse=direction == "desc")


def test_since_leaves_out_what_was_changed_at_that_very_second() -> None:
    store = vendor(8)
    repo, path = repository(store)
    row = sorted(store.rows("issue_comments", repo.id), key=lambda row: row.updated)[3]
    for moment, found in ((row.updated - timedelta(seconds=1), True), (row.updated, False)):
        page = listed(asked(store, f"{path}/issues/comments", since=plain_text(moment)))
        assert (row.raw_id in {one["id"] for one in page}) is found


def test_a_search_among_runs_shows_a_thousand() -> None:
    store = vendor(0)
    store.facts[CAP_FACT] = 4
    repo = store.create("repositories")
    for _ in range(9):
        store.create("workflow_runs", repo.id)
    path, day = f"/repos/{ORG}/{repo.content['name']}/actions/runs", "2026-01-31T00:00:00Z..2026-01-31T23:59:59Z"
    plain, searched = (msgspec.json.decode(one.body) for one in (asked(store, path), asked(store, path, created=day)))
    assert [len(plain["workflow_runs"]), len(searched["workflow_runs"]), searched["total_count"]] == [9, 4, 9]


def test_literal_secrets_are_hidden_from_who_asks_for_that() -> None:
    store = vendor()
    path = f"/orgs/{ORG}/secret-scanning/alerts"
    assert all("secret" in one for one in listed(asked(store, path)))
    assert all("secret" not in one for one in listed(asked(store, path, hide_secret="true")))


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/orgs/other/repos", {}, 404),
        (f"/repos/{ORG}/nothing/issues", {}, 404),
        ("/repositories/1", {}, 404),
        (f"/orgs/{ORG}/nothing", {}, 404),
        (f"/orgs/{ORG}/repos", {"sort": "stars"}, 422),
        (f"/orgs/{ORG}/dependabot/alerts", {"page": "2"}, 400),
        (f"/orgs/{ORG}/dependabot/alerts", {"after": "x"}, 422),
    ],
)
def test_what_is_not_there_or_not_understood_is_refused(path: str, query: dict[str, Any], status: int) -> None:
    answer = asked(vendor(), path, **query)
    assert (answer.status, msgspec.json.decode(answer.body)["status"]) == (status, str(status))


def test_wrong_tokens_and_nameless_programs_are_refused() -> None:
    store = vendor()
    assert asked(store, f"/orgs/{ORG}/teams", headers={"authorization": "Bearer no"}).status == 401
    assert asked(store, f"/orgs/{ORG}/teams", headers={"user-agent": ""}).status == 403
    path = f"/app/installations/{INSTALLATION_ID}/access_tokens"
    told = {"authorization": "Bearer a.b.c", "user-agent": "avesa"}
    assert answered(DIALECT, store, Request("POST", API, path, {}, told, NOW)).status == 401
    assert DIALECT.credentials(store)["private_key"] == PRIVATE_KEY
    assert DIALECT.credentials(store)["app_id"] == APP_ID


def test_what_is_left_is_told_with_every_answer_and_beyond_it_when_it_begins_anew() -> None:
    store = vendor()
    store.facts["limit:core"] = 2
    answers = [asked(store, f"/orgs/{ORG}/teams") for _ in range(3)]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
    assert answers[2].status == 403
    assert "rate limit" in msgspec.json.decode(answers[2].body)["message"]
    assert int(answers[2].headers["X-RateLimit-Reset"]) == int(NOW.timestamp()) + 3_600
