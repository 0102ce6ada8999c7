"""Vendors that are hostile on request: each dialect is one small module here, named like its integration file.

**What to write.** `vendors/<service>.py` with one constant `DIALECT: Dialect` (`dialect.py`):

    TICKETS = Collection("tickets", make=ticket, text="subject", stamp="updated_at", created="created_at", size=30)

    def ticket(draw: Draw) -> dict[str, Any]:                      # no id, no stamps: the store adds them
        return {"subject": draw.one_of("Printer", "VPN"), "status": draw.one_of("open", "closed"),
                "requester_id": draw.of("users")}

    def answer(store: Store, request: Request) -> Answer:          # pure but for `store`
        if request.path == "/oauth/token":
            check_client(request, "id", "secret")
            return token_answer(store, 3600.0)
        tokens_of(store).check(bearer_of(request))                 # refusals are raised: RefusedError
        spent = spend(store, "calls", 700, 60.0)
        size = number_in(request.query, "per_page", 100, least=1, most=100)
        rows = [row for row in store.rows("tickets") if sql_like(request.query.get("filter", ""), SQL)(row.content)]
        cut = by_number(rows, number_in(request.query, "page", 1, least=1), size)
        following = request.url(page=...) if cut.more else ""
        listed = shown(cut.rows, collection="tickets", more=cut.more, following=following)
        return json_answer({"tickets": listed.contents, "next_page": following or None}, listed,
                           headers={"X-Rate-Limit-Remaining": str(spent.remaining)})

    def error(problem: Problem, about: str, wait_s: float | None) -> Answer:   # the vendor's shape of every refusal
        ...

    DIALECT = Dialect("zendesk", hosts=("*.zendesk.com",), collections=(TICKETS, ...), credentials=credentials,
                      answer=answer, error=error, sources=(...), unsourced=(...))

**The rules.**
1. A collection bears the name of the endpoint that reads it: the oracle holds the events of endpoint `x` against
   collection `x`. Where two endpoints share records (a family), the one that owns the content has the collection, the
   other is answered from it. Endpoints that only tell of deletions (audit, deleted lists) need no collection: answer
   them from `store.graves(...)`. Every other enabled endpoint of the integration has one.
2. The engine's record id is `Collection.record_id` (default: the text of the raw id); for a composite key
   `lambda raw, parent: '["%s","%s"]' % (parent.raw_id, raw)`, the JSON array as the engine writes it.
3. Lists come from `store.rows`, single records from `store.find` (by the engine's id) or `find_raw`, deletions from
   `store.graves`, change logs and delta tokens from `store.log(collection, position)` and `store.position`. Never keep
   rows yourself: what must be remembered (cursor, scroll, job, session) goes into `store.keep` and comes back out of
   `store.kept`, which knows nothing after `forget_kept` (answer `expired` then). Loose values: `store.facts`.
4. Each answer that shows records carries `Shown` (made by `shown`): the rows, `whole=False` where it shows only ids or
   some fields, `one=True` for a record by its id, `more` and `following` where pages follow. Put `Shown.contents` into
   the body; `render` changes a row's content on the way (links, nested objects). An answer that has records of a
   parent and of its children shows the children.
5. Page sizes come from the request, cut at the vendor's maximum. Where the vendor fixes them: `store.page_size(name,
   own)`, so that tests can ask for small pages without thousands of records.
6. `credentials(store)` gives what a user types (the names of the integration file's credentials); it is called again
   after a revocation, so issue refresh tokens there (`tokens_of(store).issue_refresh()`).
7. Hosts are the vendor's real names: the tests' transport brings `https://anything` to this server with that name as
   `Host`, and what no dialect answers for is counted as led astray. Build links with `request.url(...)`.
8. Be as strict as the vendor: an unknown path is `not_found`, a parameter or filter that the vendor refuses is
   `bad_request`, a page size above its maximum is cut or refused as the vendor does. What the engine must not rely
   on, do not grant. Sort as the vendor documents; where it documents nothing, shuffle with a fixed rule (say, by a
   digest of the id).
9. Do nothing hostile: 429 storms, cuts, expiry, revocation, loops, late visibility, moved rows come from `hostility.py`
   for every dialect alike. `hostility.py` needs only rules 3 to 5 and `error`.
10. Cite the source of each behaviour in `sources` (page names); list what rests on nothing in `unsourced`. Answers are
   validated against the vendor's description in `tests/dialects/test_<service>.py` (yours; `held_against` of
   `tests/dialects/described.py` does it where a description exists).

**How to try it.** `.venv/bin/python -m tests.dialects --services <service> --seeds 0-9 --rows` runs the real extractor
against it over HTTP with all of the hostility, and says what was lost, doubled or wrong. `--calm` leaves the hostility
out, `--say` prints every request. tests/dialects/reference.py is a whole dialect to copy from.

**What is where.** `store.py` records, versions, changes, time. `dialect.py` requests and answers. `pages.py` pages.
`filters.py` comparisons, SQL-like and OData filters. `access.py` credentials, tokens, assertions, limits; `keys.py` a
key pair to sign assertions with.
`hostility.py` rows 34 to 50 of the fault list. `server.py` the server.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from services.sandbox.vendors.dialect import Dialect

FRAME: Final = frozenset({"access", "changes", "dialect", "filters", "hostility", "keys", "pages", "server", "store"})


def services() -> list[str]:
    """Names of the dialects, in order."""
    return sorted(module.name for module in iter_modules(__path__) if module.name not in FRAME)


def dialect(service: str) -> Dialect:
    """One vendor's."""
    found = import_module(f"{__name__}.{service}").DIALECT
    assert isinstance(found, Dialect), service
    return found
