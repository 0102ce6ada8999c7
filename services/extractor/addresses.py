"""Where an API lies, and which addresses may be followed. Pure."""

from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

from services.contracts.errors import RejectedError, UsageError
from services.extractor.templates import fill, names_in
from services.runtime.settings import is_loopback


def base_url(template: str, values: Mapping[str, str]) -> str:
    """Where an API begins, without a slash at the end.

    Shape:  a site may come without scheme (https) and may end with what the template adds, or with its beginning:
            nothing is added twice.
    Errors: UsageError; plain http is for this machine only.
    """
    name = next((name for name in names_in(template) if template.startswith(f"{{{name}}}")), None)
    if name is None:
        return _checked(fill(template, values).rstrip("/"))
    root = fill(template.removeprefix(f"{{{name}}}"), values)
    site = fill(f"{{{name}}}", values).strip()
    site = _checked(site.rstrip("/") if "://" in site else f"https://{site.rstrip('/')}")
    place, ours = [part for part in urlsplit(site).path.split("/") if part], [part for part in root.split("/") if part]
    shared = next((n for n in range(min(len(place), len(ours)), 0, -1) if place[-n:] == ours[:n]), 0)
    return "/".join([_origin(site), *place, *ours[shared:]])


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a bad port raises here
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or any(c.isspace() for c in url):
        raise UsageError(f"{_shown(url)} is not the address of an API", remedy="Write it as https://host.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(
            f"the address at {host} holds more than a host and a path",
            remedy="Leave out what stands before '@' and from '?' or '#' on; credentials have fields of their own.",
        )
    if parts.scheme == "http" and not is_loopback(url):
        raise UsageError(
            f"{_shown(url)} would send credentials in the clear",
            remedy="Write https://; http is for this computer.",
        )
    return url


def _shown(url: str) -> str:
    return repr(url.rpartition("@")[2][:80])


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def followed(asked: str, location: str) -> str:
    """Where a redirect or a next page leads, if that is the same host by the same means.

    Errors: RejectedError `wrong_host`.
    """
    there = urljoin(asked, location)
    here, target = urlsplit(asked), urlsplit(there)
    try:
        same = (here.scheme, here.hostname, here.port) == (target.scheme, target.hostname, target.port)
    except ValueError:
        same = False
    if not same or target.username is not None:
        raise RejectedError(f"{here.hostname} sends us to another host, which is not followed", code="wrong_host")
    return there
