"""What has to be asked before the first call: a region, an account, the real base address. Pure."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from services.contracts.access import Discovery
from services.contracts.errors import RetryableError, UnauthorizedError
from services.contracts.integration import Integration
from services.extractor.auth import Site
from services.extractor.raw_json import UnreadableError, compact, items_of, scalar_text, split_path, value_at
from services.extractor.requests import Request
from services.extractor.templates import fill
from services.extractor.tokens import address_of
from services.runtime.settings import is_loopback


def discovery_request(integration: Integration, step: Discovery, site: Site) -> Request:
    """The GET of one step; who we are is added where it is `authenticated`. Errors: UsageError."""
    url, query = address_of(integration, step.url, site.values)
    headers = {"Accept": "application/json"} | (site.headers if step.authenticated else {})
    query += tuple(site.params.items()) if step.authenticated else ()
    return Request(url=url, query=query, headers=tuple(headers.items()), source=f"GET {step.url.partition('?')[0]}")


def discovered(step: Discovery, body: bytes, values: Mapping[str, str], request: Request) -> dict[str, str]:
    """What one answer tells, by name.

    Errors: RetryableError `bad_answer`; UnauthorizedError where nothing in it is ours, `wrong_host` for an address that
            is not the vendor's.
    """
    try:
        plain = compact(body)
    except UnreadableError as err:
        raise RetryableError(f"{request.source}: an answer that is no JSON", code="bad_answer") from err
    item = plain if step.records is None else _ours(step, plain, values, request)
    found: dict[str, str] = {}
    for name, path in step.values.items():
        text = scalar_text(value_at(item, split_path(path)))
        if text is None:
            raise RetryableError(f"{request.source}: an answer without {path!r}", code="bad_answer")
        if "://" in text and not _is_theirs(text, step.hosts, request.url):
            raise UnauthorizedError(
                f"{request.source}: {name} lies at {urlsplit(text).hostname}, which is no host of this vendor's",
                code="wrong_host",
                remedy="If the vendor has moved, add the host to `discovery.hosts` in the mapping file.",
            )
        found[name] = text
    return found


def _ours(step: Discovery, plain: bytes, values: Mapping[str, str], request: Request) -> bytes:
    """The first item that fits; a condition whose value was left empty fits all."""
    wanted = {path: fill(template, values) for path, template in step.where.items()}
    listed = value_at(plain, split_path(step.records or ""))
    for item in items_of(listed) if listed is not None and listed[:1] == b"[" else []:
        texts = {path: scalar_text(value_at(item, split_path(path))) or "" for path in wanted}
        if all(not text or texts[path].casefold() == text.casefold() for path, text in wanted.items()):
            return item
    asked = " and ".join(f"{path} {text!r}" for path, text in wanted.items() if text)
    raise UnauthorizedError(
        f"{request.source}: these credentials reach no account{f' with {asked}' if asked else ''}",
        remedy="Check at the vendor what was granted, then run `avesa setup-service` again.",
    )


def _is_theirs(url: str, hosts: list[str], asked: str) -> bool:
    """Does an address lie on one of `hosts` or below, by https; with none named, on the host that was asked.

    Only who is on this machine may send us to this machine.
    """
    try:
        parts = urlsplit(url)
        host, here = parts.hostname or "", urlsplit(asked).hostname or ""
    except ValueError:
        return False
    if is_loopback(url):
        return is_loopback(asked)
    named = [name.removeprefix(".").lower() for name in hosts] or [here]
    return (
        parts.scheme == "https"
        and parts.username is None
        and any(host == name or host.endswith(f".{name}") for name in named)
    )
