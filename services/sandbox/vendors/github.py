"""The dialect of GitHub: an App's tokens, and the REST API of one organization.

What one may not see is not there (404). Pages follow the header `Link`, and one may be shorter than asked for.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec

from services.sandbox.vendors.access import bearer_of, read_assertion, spend, tokens_of
from services.sandbox.vendors.dialect import (
    Answer,
    Dialect,
    Problem,
    RefusedError,
    Request,
    json_answer,
    link_header,
    number_in,
    shown,
)
from services.sandbox.vendors.filters import as_time
from services.sandbox.vendors.keys import PRIVATE_KEY, PUBLIC_KEY
from services.sandbox.vendors.pages import Cut
from services.sandbox.vendors.store import Collection, Draw, Row, Store, plain_text, value_at

HOST: Final = "api.github.com"
API: Final = f"https://{HOST}"
ORG, ORG_ID = "acme", 9_919
APP_ID, INSTALLATION_ID = "314159", "27182818"
TOKEN: Final = "github_pat_11ACME0000000000000000"  # noqa: S105  a personal access token of nobody's
ASSERTION_S, INSTALLATION_TOKEN_S = 600.0, 3_600.0
PER_HOUR: Final = 5_000
POINTS_PER_MINUTE: Final = 900
PAGE, PAGE_MAX = 30, 100
TOKEN_FACT: Final = "github:token"  # noqa: S105  the personal access token that is taken, a text, where there is one
CURSOR: Final = "Y3Vyc29yOnYyOp"
SEARCH_MAX: Final = 1_000
CAP_FACT: Final = "github:search_max"  # an int that overrules SEARCH_MAX, for tests of small caps
SHORT: Final = 7  # there is a hidden record for so many that may be seen
DOCS: Final = "https://docs.github.com/rest"


# -- records -----------------------------------------------------------------------------------------------------------
def _numbered(start: int) -> Callable[[int, Random], int]:
    """Ids that grow, from `start`."""
    return lambda number, _: start + number * 7


def _login(user_id: Any) -> str:
    return f"person-{user_id}"


def _user(user_id: Any) -> dict[str, Any] | None:
    """An account as it stands within other records."""
    if user_id is None:
        return None
    login = _login(user_id)
    return {"login": login, "id": user_id, "url": f"{API}/users/{login}", "type": "User", "site_admin": False}


def _repo_url(draw: Draw) -> str:
    return f"{API}/repos/{ORG}/{_repo_name(draw.parent)}"


def _repo_name(parent: Row | None) -> str:
    return str(parent.content["name"]) if parent is not None else "gone"


def _minimal(repository: Row | None) -> dict[str, Any]:
    """A repository as it stands within other records."""
    name, raw_id = _repo_name(repository), repository.raw_id if repository is not None else 0
    return {
        "id": raw_id,
        "name": name,
        "full_name": f"{ORG}/{name}",
        "private": True,
        "url": f"{API}/repos/{ORG}/{name}",
    }


def _repository(draw: Draw) -> dict[str, Any]:
    name = f"repo-{draw.number}"
    return {
        "name": name,
        "full_name": f"{ORG}/{name}",
        "owner": {"login": ORG, "id": ORG_ID, "type": "Organization"},
        "private": draw.flag(),
        "visibility": draw.one_of("private", "internal", "public"),
        "description": draw.one_of("Site web", "Køb & salg", "Scripts"),
        "archived": draw.flag(0.1),
        "default_branch": "main",
        "stargazers_count": draw.number_in(0, 90),
        "temp_clone_token": "secret-clone-token",
        "permissions": {"admin": False, "pull": True},
        "custom_properties": {"tier": draw.one_of("gold", "silver")},
        "html_url": f"https://github.com/{ORG}/{name}",
    }


def _person(draw: Draw) -> dict[str, Any]:
    found = _user(draw.id) or {}
    return {**found, "avatar_url": f"https://avatars.githubusercontent.com/u/{draw.id}", "user_view_type": "public"}


def _team(draw: Draw) -> dict[str, Any]:
    name = f"Team {draw.number}"
    return {
        "name": name,
        "slug": name.lower().replace(" ", "-"),
        "description": "on call",
        "privacy": draw.one_of("closed", "secret"),
        "permission": draw.one_of("pull", "push"),
    }


def _issue(draw: Draw) -> dict[str, Any]:
    closed = draw.flag()
    url = f"{_repo_url(draw)}/issues/{draw.number}"
    return {
        "number": draw.number,
        "url": url,
        "html_url": url.replace(f"{API}/repos", "https://github.com"),
        "repository_url": _repo_url(draw),
        "title": draw.one_of("Crash on start", "Größe falsch", "Docs"),
        "body": draw.one_of(None, "Steps:\n1. open"),
        "state": "closed" if closed else "open",
        "state_reason": draw.one_of("completed", "not_planned") if closed else None,
        "closed_at": plain_text(draw.now) if closed else None,
        "user": _user(draw.of("members")),
        "assignee": _user(draw.of("members")) if draw.flag() else None,
        "labels": [{"id": 1, "name": "bug", "color": "d73a4a"}] if draw.flag() else [],
        "milestone": None,
        "locked": False,
        "comments": draw.number_in(0, 9),
        **({"pull_request": {"url": url.replace("/issues/", "/pulls/")}} if draw.flag(0.3) else {}),
    }


def _comment(draw: Draw) -> dict[str, Any]:
    url = f"{_repo_url(draw)}/issues"
    return {
        "url": f"{url}/comments/{draw.id}",
        "issue_url": f"{url}/{draw.number_in(1, 20)}",
        "html_url": f"https://github.com/{ORG}/{_repo_name(draw.parent)}/issues/1#issuecomment-{draw.id}",
        "body": draw.one_of("+1", "merci, ça marche"),
        "user": _user(draw.of("members")),
        "author_association": "MEMBER",
    }


def _event(draw: Draw) -> dict[str, Any]:
    issue = {"id": draw.of("issues"), "number": draw.number_in(1, 20), "url": f"{_repo_url(draw)}/issues/1"}
    return {
        "url": f"{_repo_url(draw)}/issues/events/{draw.id}",
        "event": draw.one_of("closed", "labeled", "renamed"),
        "actor": _user(draw.of("members")),
        "commit_id": None,
        "commit_url": None,
        "label": {"name": "bug", "color": "d73a4a"},
        "lock_reason": "spam",
        "issue": {**issue, "title": "Crash on start", "comments": draw.number_in(0, 9)},
    }


def _pull(draw: Draw) -> dict[str, Any]:
    base = {"label": f"{ORG}:main", "ref": "main", "sha": _sha(draw.number, draw.rng), "user": _user(1)}
    return {
        "number": draw.number,
        "url": f"{_repo_url(draw)}/pulls/{draw.number}",
        "title": draw.one_of("Fix crash", "Bump lodash"),
        "body": "fixes #1",
        "state": draw.one_of("open", "closed"),
        "draft": draw.flag(0.2),
        "user": _user(draw.of("members")),
        "head": {**base, "ref": "fix", "repo": _minimal(draw.parent)},
        "base": {**base, "repo": {**_minimal(draw.parent), "open_issues_count": draw.number_in(0, 99)}},
        "merged_at": None,
    }


def _sha(_: int, rng: Random) -> str:
    return f"{rng.getrandbits(160):040x}"


def _node(number: int, rng: Random) -> str:
    return f"C_kwDO{number}{rng.getrandbits(80):020x}"


def _commit(draw: Draw) -> dict[str, Any]:
    sha = _sha(draw.number, draw.rng)
    signed = {"name": "Ana López", "email": "ana@example.com"}
    return {
        "sha": sha,
        "url": f"{_repo_url(draw)}/commits/{sha}",
        "html_url": f"https://github.com/{ORG}/{_repo_name(draw.parent)}/commit/{sha}",
        "commit": {
            "message": "Fix crash",
            "author": {**signed, "date": plain_text(draw.now - timedelta(hours=1))},
            "committer": dict(signed),
            "verification": {"verified": False, "reason": "unsigned"},
        },
        "author": _user(draw.of("members")),
        "committer": None,
        "parents": [],
    }


def _milestone(draw: Draw) -> dict[str, Any]:
    return {
        "number": draw.number,
        "title": f"v{draw.number}",
        "description": "next",
        "state": draw.one_of("open", "closed"),
        "open_issues": draw.number_in(0, 9),
        "closed_issues": draw.number_in(0, 9),
        "due_on": draw.one_of(None, plain_text(draw.moment(1, 30))),
    }


def _label(draw: Draw) -> dict[str, Any]:
    return {"name": f"label-{draw.number}", "description": "kind", "color": "d73a4a", "default": draw.flag()}


def _release(draw: Draw) -> dict[str, Any]:
    return {
        "tag_name": f"v1.{draw.number}",
        "name": draw.one_of(None, "Spring"),
        "body": "notes",
        "draft": draw.flag(0.2),
        "prerelease": draw.flag(0.2),
        "published_at": plain_text(draw.now),
        "author": _user(draw.of("members")),
        "assets": [],
    }


def _run(draw: Draw) -> dict[str, Any]:
    done = draw.flag(0.7)
    return {
        "name": "CI",
        "display_title": "Fix crash",
        "path": ".github/workflows/ci.yml",
        "run_number": draw.number,
        "run_attempt": 1,
        "event": draw.one_of("push", "schedule"),
        "status": "completed" if done else "in_progress",
        "conclusion": draw.one_of("success", "failure") if done else None,
        "workflow_id": 161_335,
        "head_branch": "main",
        "head_sha": _sha(draw.number, draw.rng),
        "triggering_actor": _user(draw.of("members")),
        "run_started_at": plain_text(draw.now),
        "repository": _minimal(draw.parent),
        "head_repository": _minimal(draw.parent),
    }


def _dependabot(draw: Draw) -> dict[str, Any]:
    package = {"ecosystem": "npm", "name": draw.one_of("lodash", "ansi-regex")}
    severity = draw.one_of("low", "high", "critical")
    return {
        "state": draw.one_of("open", "dismissed", "fixed", "auto_dismissed"),
        "dependency": {"package": package, "manifest_path": "package-lock.json", "scope": "runtime"},
        "security_advisory": {
            "ghsa_id": "GHSA-8cf7-32gw-wr33",
            "cve_id": draw.one_of(None, "CVE-2022-23539"),
            "summary": "Unsafe regular expression",
            "description": "long",
            "severity": severity,
            "cvss": {"score": 7.5, "vector_string": None},
        },
        "security_vulnerability": {
            "package": package,
            "severity": severity,
            "vulnerable_version_range": "< 4.17.21",
            "first_patched_version": draw.one_of(None, {"identifier": "4.17.21"}),
        },
        "dismissed_by": None,
        "dismissed_reason": None,
        "fixed_at": None,
        "repository": _minimal(draw.parent),
    }


def _code_scanning(draw: Draw) -> dict[str, Any]:
    return {
        "state": draw.one_of("open", "dismissed", "fixed"),
        "rule": {"id": "js/zipslip", "name": "js/zipslip", "severity": "error", "description": "Arbitrary file write"},
        "tool": {"name": "CodeQL", "version": "2.15"},
        "most_recent_instance": {"ref": "refs/heads/main", "location": {"path": "a.js", "start_line": 917}},
        "dismissed_by": None,
        "dismissed_reason": None,
        "fixed_at": None,
        "repository": _minimal(draw.parent),
    }


def _secret_scanning(draw: Draw) -> dict[str, Any]:
    return {
        "state": draw.one_of("open", "resolved"),
        "resolution": None,
        "resolved_by": None,
        "secret_type": "adafruit_io_key",
        "secret_type_display_name": "Adafruit IO Key",
        "secret": "aio_XXXXXXXXXXXXXXXXXXXXXXXXXXXX",
        "validity": draw.one_of("active", "inactive", "unknown"),
        "resolution_comment": "rotated",
        "repository": _minimal(draw.parent),
    }


def _alert_id(raw: Any, parent: Row | None) -> str:
    """The engine's id of an alert: that of the repository, and the number within it."""
    return f'["{parent.raw_id if parent is not None else 0}","{raw}"]'


_STAMPS: Final[dict[str, Any]] = {"stamp": "updated_at", "created": "created_at"}


def _below(name: str, make: Callable[[Draw], dict[str, Any]], text: str, start: int, **more: Any) -> Collection:
    """What hangs from repositories."""
    settings = {"ids": _numbered(start), "parent": "repositories", "size": 5, **_STAMPS}
    return Collection(name, make, text=text, **{**settings, **more})


def _alerts(name: str, make: Callable[[Draw], dict[str, Any]], text: str) -> Collection:
    """Alerts are numbered within their repository; nobody restores one, and their state is no deletion."""
    fixed = frozenset({"repository.id"})
    settings: dict[str, Any] = {"id": "number", "ids": lambda number, _: number, "record_id": _alert_id, "size": 3}
    return _below(name, make, text, 0, fixed=fixed, restores=False, **settings)


_PEOPLE: Final[dict[str, Any]] = {"restores": False, "fixed": frozenset({"login", "id"})}
COLLECTIONS: Final = (
    Collection("members", _person, text="avatar_url", ids=_numbered(1_000), size=7, **_PEOPLE),
    Collection("outside_collaborators", _person, text="avatar_url", ids=_numbered(500_000), size=4, **_PEOPLE),
    Collection("teams", _team, text="description", ids=_numbered(40), size=5, restores=False),
    Collection(
        "repositories",
        _repository,
        text="description",
        ids=_numbered(1_296_000),
        restores=False,
        fixed=frozenset({"name", "full_name", "owner.login", "owner.id"}),
        size=4,
        **_STAMPS,
    ),
    _below("issues", _issue, "title", 100_000, fixed=frozenset({"number", "url", "pull_request.url"}), size=7),
    _below("issue_comments", _comment, "body", 200_000, size=7),
    _below("issue_events", _event, "lock_reason", 300_000, log=True, stamp=None, size=7),
    _below("pull_requests", _pull, "title", 400_000, size=5),
    _below(
        "commits",
        _commit,
        "commit.message",
        0,
        id="node_id",
        ids=_node,
        stamp=None,
        created="commit.committer.date",
        log=True,
    ),
    _below("milestones", _milestone, "description", 600_000, size=3),
    _below("labels", _label, "description", 700_000, stamp=None, created=None, size=3),
    _below("releases", _release, "body", 800_000, size=3),
    _below(
        "workflow_runs", _run, "display_title", 900_000, fixed=frozenset({"run_started_at"}), restores=False, size=6
    ),
    _alerts("dependabot_alerts", _dependabot, "security_advisory.summary"),
    _alerts("code_scanning_alerts", _code_scanning, "rule.description"),
    _alerts("secret_scanning_alerts", _secret_scanning, "resolution_comment"),
)
_OF_REPO: Final[Mapping[str, str]] = {
    "issues": "issues",
    "issues/comments": "issue_comments",
    "issues/events": "issue_events",
    "pulls": "pull_requests",
    "commits": "commits",
    "milestones": "milestones",
    "labels": "labels",
    "releases": "releases",
    "actions/runs": "workflow_runs",
}
_OF_ORG: Final[Mapping[str, str]] = {
    "repos": "repositories",
    "members": "members",
    "outside_collaborators": "outside_collaborators",
    "teams": "teams",
    "dependabot/alerts": "dependabot_alerts",
    "code-scanning/alerts": "code_scanning_alerts",
    "secret-scanning/alerts": "secret_scanning_alerts",
}
_SORTS: Final[Mapping[str, Mapping[str, str]]] = {  # what lists may be sorted by; the first is how they are anyway
    "repositories": {"created": "created_at", "updated": "updated_at", "pushed": "pushed_at", "full_name": "full_name"},
    "issues": {"created": "created_at", "updated": "updated_at", "comments": "comments"},
    "issue_comments": {"": "id", "created": "created_at", "updated": "updated_at"},
    "pull_requests": {"created": "created_at", "updated": "updated_at"},
    "milestones": {"due_on": "due_on", "completeness": "closed_issues"},
    "dependabot_alerts": {"created": "created_at", "updated": "updated_at"},
    "code_scanning_alerts": {"created": "created_at", "updated": "updated_at"},
    "secret_scanning_alerts": {"created": "created_at", "updated": "updated_at"},
}
_NEWEST_FIRST: Final = {"issues", "issue_events", "commits", "releases", "workflow_runs"}
_STATEFUL: Final = {"issues", "pull_requests", "milestones"}  # lists that show what is open, but for `state=all`


# -- requests ----------------------------------------------------------------------------------------------------------
def answer(store: Store, request: Request) -> Answer:
    """Everything at `api.github.com`; nobody is answered who does not say what program asks."""
    if not request.headers.get("user-agent"):
        return _told(
            403, "Request forbidden by administrative rules. Please make sure your request has a User-Agent header"
        )
    if request.method == "POST" and request.path == f"/app/installations/{INSTALLATION_ID}/access_tokens":
        return _installation_token(store, request)
    bearer = bearer_of(request)
    if bearer != store.facts.get(TOKEN_FACT):
        tokens_of(store).check(bearer)
    if request.method != "GET":
        raise RefusedError("not_found", request.path)
    try:
        spent = spend(store, "core", PER_HOUR, 3_600.0)
        spend(store, "points", POINTS_PER_MINUTE, 60.0)
    except RefusedError as refused:
        return _limited(request, refused)
    reset = int(request.at.timestamp()) + spent.reset_s
    told = _limits(spent.limit, spent.remaining, reset)
    given = _data(store, request, request.path.strip("/").split("/"))
    return msgspec.structs.replace(given, headers={**given.headers, **told})


def _installation_token(store: Store, request: Request) -> Answer:
    claims = read_assertion(bearer_of(request), PUBLIC_KEY, request.at, lifetime_max_s=ASSERTION_S)
    if (
        str(claims.get("iss")) != APP_ID
        or not isinstance(claims.get("iat"), int)
        or claims["iat"] > request.at.timestamp()
    ):
        raise RefusedError("invalid_grant", "issuer")
    token = tokens_of(store).issue(INSTALLATION_TOKEN_S)
    until = request.at + timedelta(seconds=INSTALLATION_TOKEN_S)
    value = {
        "token": token,
        "expires_at": plain_text(until),
        "permissions": {"issues": "read"},
        "repository_selection": "all",
    }
    return msgspec.structs.replace(json_answer(value, status=201), token=True)


def _limits(limit: int, remaining: int, reset: int) -> dict[str, str]:
    numbers = {"Limit": limit, "Remaining": remaining, "Used": limit - remaining, "Reset": reset}
    return {**{f"X-RateLimit-{name}": str(number) for name, number in numbers.items()}, "X-RateLimit-Resource": "core"}


def _limited(request: Request, refused: RefusedError) -> Answer:
    """The primary limit names its reset, a secondary one how long to wait."""
    wait_s = refused.wait_s or 60.0
    if refused.about == "points":
        return error("throttled", refused.about, wait_s)
    told = _limits(PER_HOUR, 0, int(request.at.timestamp() + wait_s))
    return _told(403, f"API rate limit exceeded for installation ID {INSTALLATION_ID}.", told)


def _data(store: Store, request: Request, parts: Sequence[str]) -> Answer:
    match parts:
        case ["orgs", org, *rest] if org == ORG and "/".join(rest) in _OF_ORG:
            return _list(store, request, _OF_ORG["/".join(rest)], None)
        case ["repos", org, name, *rest] if org == ORG:
            found = next((row for row in store.rows("repositories") if row.content.get("name") == name), None)
            return _repo(store, request, found, "/".join(rest))
        case ["repositories", raw_id, *rest]:
            return _repo(store, request, store.find_raw("repositories", raw_id), "/".join(rest))
    raise RefusedError("not_found", request.path)


def _repo(store: Store, request: Request, repository: Row | None, rest: str) -> Answer:
    if repository is None:
        raise RefusedError("not_found", request.path)
    if not rest:
        listed = shown([repository], collection="repositories", render=lambda row: _pushed(store, row), one=True)
        return json_answer(listed.contents[0], listed)
    if rest not in _OF_REPO:
        raise RefusedError("not_found", request.path)
    collection = _OF_REPO[rest]
    if collection == "commits" and not store.rows("commits", repository.id):
        return _told(409, "Git Repository is empty.")
    return _list(store, request, collection, repository)


def _pushed(store: Store, row: Row) -> dict[str, Any]:
    """A repository knows when something was pushed to it last."""
    pushes = [commit.seen_from for commit in store.rows("commits", row.id)]
    return {**row.content, "pushed_at": plain_text(max(pushes)) if pushes else row.content["created_at"]}


# -- lists -------------------------------------------------------------------------------------------------------------
def _list(store: Store, request: Request, collection: str, repository: Row | None) -> Answer:
    query = request.query
    rows = store.rows(collection, repository.id if repository is not None else None)
    rows = _ordered(_matching(rows, query, collection), query, collection)
    total = len(rows)
    if collection == "workflow_runs" and "created" in query:
        rows = rows[: int(store.facts.get(CAP_FACT, SEARCH_MAX))]
    size, page = number_in(query, "per_page", PAGE, least=1, most=PAGE_MAX), number_in(query, "page", 1, least=1)
    if collection == "dependabot_alerts" and "page" in query:
        return _told(400, "The page parameter is not supported: use before and after")
    cut = _cut(rows, _after(query) if collection == "dependabot_alerts" else (page - 1) * size, size)
    following = _following(request, repository, collection, cut, page, size)
    listed = shown(
        cut.rows,
        collection=collection,
        render=lambda row: _rendered(store, row, query),
        more=cut.more,
        following=following,
    )
    value: Any = listed.contents
    if collection == "workflow_runs":
        value = {"total_count": total, "workflow_runs": listed.contents}
    return json_answer(value, listed, headers=link_header(next=following))


def _cut(rows: Sequence[Row], start: int, size: int) -> Cut:
    """A page of what the database holds, without what nobody may see: so it may be short, or empty, though more follow.
    After every SHORT-th record stands one that is hidden."""
    held = [found for row in rows for found in ((row, None) if row.number % SHORT == 0 else (row,))]
    page = held[start : start + size]
    return Cut([row for row in page if row is not None], start, len(held), start + size < len(held))


def _rendered(store: Store, row: Row, query: Mapping[str, str]) -> Any:
    if row.collection == "repositories":
        return _pushed(store, row)
    if row.collection == "secret_scanning_alerts" and query.get("hide_secret") == "true":
        return {name: value for name, value in row.content.items() if name != "secret"}
    return row.content


def _following(request: Request, repository: Row | None, collection: str, cut: Cut, page: int, size: int) -> str:
    """The next page: by number, by cursor, and of a repository's lists under the repository's id."""
    if not cut.more:
        return ""
    if collection == "dependabot_alerts":
        return request.url(after=f"{CURSOR}{cut.start + size}")
    address = request.url(page=page + 1)
    if repository is None or request.path.startswith("/repositories/"):
        return address
    named = f"{API}/repos/{ORG}/{_repo_name(repository)}/"
    return address.replace(named, f"{API}/repositories/{repository.raw_id}/", 1)


def _after(query: Mapping[str, str]) -> int:
    text = query.get("after", "").removeprefix(CURSOR)
    if text and not text.isdigit():
        raise RefusedError("bad_request", "after")
    return int(text or 0)


def _matching(rows: Sequence[Row], query: Mapping[str, str], collection: str) -> list[Row]:
    """What `state`, `since` and `created` leave of a list."""
    state = query.get("state", "open") if collection in _STATEFUL else "all"
    if state not in ("open", "closed", "all"):
        raise RefusedError("bad_request", f"state={state}")
    found = [row for row in rows if state in ("all", row.content.get("state"))]
    if "since" in query and collection in ("issues", "issue_comments", "commits"):
        since = _moment(query["since"])
        found = [row for row in found if row.updated > since]
    if "created" in query and collection == "workflow_runs":
        first, dots, last = query["created"].partition("..")
        if not dots:
            raise RefusedError("bad_request", f"created={query['created']}")
        begun, ended = _moment(first), _moment(last)
        found = [row for row in found if begun <= row.created.replace(microsecond=0) <= ended]
    return found


def _moment(text: str) -> datetime:
    found = as_time(text) if len(text) == len("2026-01-31T12:00:00Z") else None
    if found is None:
        raise RefusedError("bad_request", f"{text} is no time")
    return found


def _ordered(rows: Sequence[Row], query: Mapping[str, str], collection: str) -> list[Row]:
    sorts = _SORTS.get(collection, {})
    sort, direction = query.get("sort", next(iter(sorts), "")), query.get("direction", "")
    if (sorts and sort not in sorts) or direction not in ("", "asc", "desc"):
        raise RefusedError("bad_request", f"sort={sort}, direction={direction}")
    if not sorts and collection not in _NEWEST_FIRST:
        return sorted(rows, key=lambda row: hashlib.blake2b(row.id.encode()).digest())
    up = direction == "asc" or (not direction and (sort in ("full_name", "") or collection == "milestones"))
    if not sorts:
        return sorted(rows, key=lambda row: (row.created, row.number), reverse=True)
    path = sorts[sort]

    def key(row: Row) -> tuple[str, int]:
        found = plain_text(row.updated) if path == "updated_at" else value_at(row.content, path)
        return (f"{found:012d}" if isinstance(found, int) else str(found or ""), row.number)

    return sorted(rows, key=key, reverse=not up)


# -- refusals ----------------------------------------------------------------------------------------------------------
def _told(status: int, message: str, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
    value = {"message": message, **more, "documentation_url": DOCS, "status": str(status)}
    return json_answer(value, status=status, headers=headers)


def error(problem: Problem, about: str, wait_s: float | None) -> Answer:  # noqa: PLR0911  one for each
    """GitHub's shape of each refusal."""
    match problem:
        case "unauthorized":
            return _told(401, "Bad credentials")
        case "invalid_grant":
            return _told(401, "A JSON web token could not be decoded")
        case "forbidden":
            return _told(403, "Resource not accessible by integration")
        case "not_found":
            return _told(404, "Not Found")
        case "throttled":
            wait = {} if wait_s is None else {"Retry-After": str(max(1, round(wait_s)))}
            said = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
            return _told(403 if wait else 429, said, wait)
        case "unavailable":
            return _told(502, "Server Error")
        case _:
            return _told(422, "Validation Failed", errors=[{"message": about, "code": "custom"}])


def credentials(_: Store) -> dict[str, str]:
    """What a user types: a GitHub App and where it is installed."""
    app = {"app_id": APP_ID, "installation_id": INSTALLATION_ID, "private_key": PRIVATE_KEY}
    return {"api_url": API, "org": ORG, "token": "", **app}


DIALECT: Final = Dialect(
    "github",
    hosts=(HOST,),
    collections=COLLECTIONS,
    credentials=credentials,
    answer=answer,
    error=error,
    sources=(
        "github/rest-api-description: paths, parameters, defaults, shapes, 1,000 results of a search among runs",
        "docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api: per_page is cut at 100, Link",
        "docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api, best-practices: limits, headers, 403 "
        "or 429",
        "docs.github.com/en/apps: an App's JWT of ten minutes at most, an installation token of an hour",
        "docs.github.com/en/rest/using-the-rest-api/getting-started-with-the-rest-api: a User-Agent is required",
        "chaoss/grimoirelab-perceval#767: Link of a repository's list leads to repositories/{id}",
        "github/rest-api-description#385: 409 of an empty repository",
    ),
    unsourced=(
        "a page may be shorter than asked for (documented is only that Link tells what follows)",
        "orders that are not documented: events, commits, releases and runs newest first, others shuffled",
        "`since` leaves out what bears that very second; both ends of `created` belong to it",
        "a number that grows with each alert of all repositories, not within its own",
        "the messages of 422 and 502",
    ),
)
