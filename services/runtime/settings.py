"""Settings: what the environment and the command line say. The only reader of `os.environ`.

Every field but the names comes from an option, else from its variable, else from its default; numbers carry their
bounds in their type. Variables are `AVESA_` and the field's name unless `_VARIABLES` says otherwise.
"""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from services.contracts.errors import UsageError
from services.contracts.gaps import GapRules, Policy
from services.contracts.log import Level
from services.contracts.names import Names

# What LocalStack and ministack take for the default account; worth nothing anywhere else.
FAKE_ACCESS_KEY: Final = "test"
FAKE_SECRET_KEY: Final = "test"  # noqa: S105  no secret
HIDDEN: Final = "***"

_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "environment": ("ENVIRONMENT",),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint_url": ("AWS_ENDPOINT_URL",),
}
_NOT_FROM_VARIABLES: Final = frozenset({"names", "localstack", "profile", "access_key", "secret_key", "session_token"})
_SECRET: Final = frozenset({"secret_key", "session_token"})
# What an interpreter needs to start; nothing that names an account, a key or a proxy.
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL")

Seconds = Annotated[float, Meta(ge=0.05, le=86_400)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the services may be told from outside. Secrets never show in its repr."""

    environment: Annotated[str, Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=32)] = "dev"
    names: Names

    # AWS. No endpoint = real AWS; no key = wherever boto3 finds one (environment, profile, task role).
    region: str = "us-east-2"
    endpoint_url: Annotated[str, Meta(pattern=r"^https?://[^/\s]+")] | None = None
    localstack: bool = False  # the endpoint was given as a LOCALSTACK_* variable: whatever its host, an emulator
    profile: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    session_token: str | None = None
    aws_connect_s: Seconds = 5.0
    aws_read_s: Seconds = 30.0  # between two bytes, not for a whole object
    aws_attempts_max: Annotated[int, Meta(ge=1, le=10)] = 3
    aws_connections_max: Annotated[int, Meta(ge=1, le=1000)] = 50

    # This process.
    state_dir: Path = Path(".avesa/state")
    threads: Annotated[int, Meta(ge=1, le=64)] = 4
    log: Level | None = None
    emf: bool = False

    # The services.
    lease_s: Annotated[float, Meta(ge=1, le=600)] = 30.0
    poll_s: Annotated[float, Meta(ge=0.05, le=60)] = 1.0
    stop_s: Annotated[float, Meta(ge=1, le=110)] = 25.0  # ECS kills 30 s after SIGTERM, 120 s at most
    spool_age_max_s: Annotated[float, Meta(ge=1, le=3_600)] = 60.0
    cut_age_max_s: Annotated[float, Meta(ge=1, le=3_600)] = 300.0
    interval_s: Annotated[float, Meta(ge=0.1, le=86_400)] | None = None  # for every endpoint, instead of its own
    retention_s: Annotated[float, Meta(ge=86_400, le=31_536_000)] = 7 * 86_400.0  # of both streams: a day to a year
    on_gap: Policy = "continue"  # what a shard does whose position is older: contracts/gaps.py
    fan_out: bool = False  # transformers are pushed what arrives, out of a throughput of their own (docs/scaling.md)

    @property
    def gaps(self) -> GapRules:
        return GapRules(self.retention_s, self.on_gap)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, **options: Any) -> Self:
        """Options given (not None) win over variables, variables over defaults.

        Errors: UsageError naming the variable or option that cannot be used.
        """
        variables = os.environ if environ is None else environ
        values: dict[str, Any] = {
            field: text for field in cls.__struct_fields__ if (text := _from_variable(variables, field))
        }
        values |= {field: value for field, value in options.items() if value is not None}
        if "endpoint_url" not in values and (url := _localstack_url(variables)):
            values |= {"endpoint_url": url, "localstack": True}
        given = variables.get("AWS_ACCESS_KEY_ID") or values.get("profile") or values.get("access_key")
        if not given and _is_emulator(values.get("endpoint_url"), bool(values.get("localstack"))):
            # An emulator takes any key: nobody should need an AWS account, or have theirs looked up, to use one.
            values |= {"access_key": FAKE_ACCESS_KEY, "secret_key": FAKE_SECRET_KEY}
        return _settings(cls, values, variables)

    @classmethod
    def embedded(cls, url: str, *, environment: str = "dev", **options: Any) -> Self:
        """Settings that reach the emulator at `url` and, whatever the environment says, no real account.

        Errors: UsageError when `url` is not on this machine's loopback.
        """
        if not is_loopback(url):
            raise UsageError(
                f"{url!r} is not on this machine", remedy="The embedded AWS answers on a loopback address only."
            )
        given = {field: value for field, value in options.items() if value is not None}
        fixed = {"endpoint_url": url, "access_key": FAKE_ACCESS_KEY, "secret_key": FAKE_SECRET_KEY}
        return _settings(cls, {"environment": environment} | given | fixed, {})

    @property
    def emulator(self) -> bool:
        """The endpoint is an emulator beyond doubt: on this machine, or LocalStack by name."""
        return _is_emulator(self.endpoint_url, self.localstack)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values no log line may show."""
        return tuple(value for value in (self.secret_key, self.session_token) if value)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = msgspec.structs.asdict(self).items()
        return [(name, HIDDEN if name in _SECRET and value else value) for name, value in fields]


S = TypeVar("S", bound=Settings)


def variable(name: str) -> str | None:
    """One environment variable, None when unset or empty: credentials given as `{SERVICE}_{FIELD}` (DESIGN 6)."""
    return os.environ.get(name) or None


def child_environment(**extra: str) -> dict[str, str]:
    """The environment for a child that must not see the user's: what an interpreter needs, and `extra`."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | extra


def own_variables() -> dict[str, str]:
    """The variables that are meant for us: `AVESA_...`."""
    return {name: text for name, text in os.environ.items() if name.startswith("AVESA_")}


def inherited_environment(**extra: str) -> dict[str, str]:
    """The environment for a child that shall see what we see, and `extra`."""
    return dict(os.environ) | extra


def is_loopback(url: str) -> bool:
    """`url` is http(s) and its host is this machine by definition, not by some resolver's answer."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # a bad port raises here
    except ValueError:
        return False
    if parts.scheme not in ("http", "https"):
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_emulator(url: str | None, localstack: bool) -> bool:
    if url is None:
        return False
    host = urlsplit(url).hostname or ""
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")):
        return False
    return localstack or is_loopback(url) or host == "localstack" or host.endswith("localhost.localstack.cloud")


def _from_variable(variables: Mapping[str, str], field: str) -> str | None:
    if field in _NOT_FROM_VARIABLES:
        return None
    candidates = _VARIABLES.get(field, (f"AVESA_{field.upper()}",))
    found = next((text for name in candidates if (text := variables.get(name, "").strip())), None)
    return found.lower() if found and field == "log" else found


def _localstack_url(variables: Mapping[str, str]) -> str | None:
    """The endpoint that LocalStack's own variables name, as LocalStack's own client reads them."""
    given = variables.get("LOCALSTACK_ENDPOINT") or variables.get("LOCALSTACK_HOST")
    if given is None and (edge := variables.get("EDGE_PORT")):
        given = f"{variables.get('LOCALSTACK_HOSTNAME') or 'localhost'}:{edge}"
    if not given:
        return None
    if "://" in given:
        return given
    from localstack_client.config import parse_localstack_host  # noqa: PLC0415  brings boto3 along; few need it

    try:
        host, port = parse_localstack_host(given)
    except RuntimeError as err:
        raise UsageError(str(err), where="LOCALSTACK_HOST", remedy="Write host:port, as localhost:4566.") from err
    return f"{'https' if variables.get('USE_SSL') in ('1', 'true') else 'http'}://{host}:{port}"


def _settings(cls: type[S], values: Mapping[str, Any], variables: Mapping[str, str]) -> S:
    environment = values.get("environment", "dev")
    names = {
        "environment": environment,
        "bucket_name": variables.get("BUCKET_NAME", ""),
        "tenant_services_table": variables.get("TENANT_SERVICES_TABLE", ""),
        "last_updated_table": variables.get("LAST_UPDATED_TABLE", ""),
    }
    unknown = set(values) - set(cls.__struct_fields__)
    assert not unknown, f"no such settings: {unknown}"
    try:
        return msgspec.convert({"names": names} | dict(values), cls, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as err:
        what, _, path = str(err).partition(" - at ")
        field = path.strip("`").removeprefix("$.")
        where = " or ".join(_VARIABLES.get(field, (f"AVESA_{field.upper()}",)))
        raise UsageError(what, where=where, remedy=f"It is {values.get(field)!r} now.") from err


def _decode(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value).expanduser()
    raise NotImplementedError(f"{kind} is no setting")
