"""Events on their way out: one log line each, and counters.

Lines are JSON on stderr for machines, coloured text where stderr is a terminal. With `emf`, an event that counts or
measures something is also one line of CloudWatch's embedded metric format, from which CloudWatch makes metrics without
any call of ours: namespace `AVESA`, metric `{Event}{Field}` (`RecordsRejectedCount`), dimension `Environment` and those
the event names (`ShardsBehindMs` by `Environment`, `Service`, `Group`).
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Final, TextIO

import msgspec
import structlog

from services.contracts.log import Event, Level, Unit
from services.contracts.ports import Clock
from services.contracts.times import moment
from services.runtime.clock import SystemClock
from services.runtime.settings import HIDDEN, Settings

Emit = Callable[[Event], None]

NAMESPACE: Final = "AVESA"
ENVIRONMENT: Final = "Environment"  # the dimension that every metric has
# Shorter values would hide half of every line, and protect nothing.
SECRET_LENGTH_MIN: Final = 8
_RANK: Final[dict[Level, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Emitter:
    """`emit` says one event. Counters are kept whatever the level; `counters[event, field]` is their sum."""

    def __init__(
        self,
        *,
        level: Level = "info",
        out: TextIO | None = None,
        environment: str = "",
        emf: bool = False,
        clock: Clock | None = None,
    ) -> None:
        out = out or sys.stderr
        people = out.isatty()
        self.counters: Counter[tuple[str, str]] = Counter()
        self._level = level
        self._environment = environment
        self._emf = emf
        self._clock = clock or SystemClock()
        self._secrets: tuple[str, ...] = ()
        renderer = (
            structlog.dev.ConsoleRenderer(timestamp_key="at") if people else structlog.processors.JSONRenderer(_json)
        )
        self._line = structlog.PrintLogger(out)
        self._log = structlog.wrap_logger(
            self._line, processors=[self._scrub, renderer], wrapper_class=structlog.BoundLogger
        )

    def hide(self, secrets: Iterable[str]) -> None:
        """Values that no line may show from now on."""
        known = {secret for secret in (*self._secrets, *secrets) if len(secret) >= SECRET_LENGTH_MIN}
        self._secrets = tuple(sorted(known, key=len, reverse=True))

    def emit(self, event: Event) -> None:
        name = type(event).__name__
        fields = msgspec.structs.asdict(event)
        for field in event.counts:
            self.counters[name, field] += fields[field]
        try:
            if _RANK[event.level] >= _RANK[self._level]:
                line = {"at": self._clock.now(), "level": event.level, "event": name} | fields
                getattr(self._log, event.level)(**line)
            if self._emf and (event.counts or event.gauges):
                self._line.info(_json(self._scrub(None, "", metrics(event, self._environment, self._clock))))
        except OSError:
            return  # whoever read our lines is gone; the work goes on

    def _scrub(self, _logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {field: self._hidden(value) if isinstance(value, str) else value for field, value in line.items()}

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text


def emitter(settings: Settings, *, level: Level) -> Emitter:
    """The emitter of one process; `level` where AVESA_LOG says nothing: `warning` for people, `info` for services."""
    made = Emitter(level=settings.log or level, environment=settings.environment, emf=settings.emf)
    made.hide(settings.secrets)
    return made


def metric_name(event: type[Event], field: str) -> str:
    """`RecordsRejectedCount`, `TableMergedRowsWritten`: what alarms and dashboards are keyed by."""
    return event.__name__ + _words(field)


def units(event: type[Event]) -> dict[str, Unit]:
    """Every metric of an event by name, with its unit."""
    counted: dict[str, Unit] = dict.fromkeys((metric_name(event, field) for field in event.counts), "Count")
    return counted | {metric_name(event, field): unit for field, unit in event.gauges.items()}


def dimension_sets(event: type[Event]) -> list[list[str]]:
    """The sets of dimensions of which each makes a metric of its own: `[["Environment", "Service"]]`."""
    return [[ENVIRONMENT, *map(_words, fields)] for fields in event.dimensions]


def metrics(event: Event, environment: str, clock: Clock) -> dict[str, Any]:
    """One event in CloudWatch's embedded metric format; the other fields ride along for Logs Insights.

    Shape:  a directive holds at most 100 metrics, a set at most 9 dimensions; resolution is one minute by default.
    Source: Amazon CloudWatch User Guide, Specification: Embedded metric format.
    """
    kind, fields = type(event), msgspec.structs.asdict(event)
    values = {metric_name(kind, field): fields.pop(field) for field in (*event.counts, *event.gauges)}
    named = {_words(field): str(fields[field]) for together in event.dimensions for field in together}
    directive = {
        "Namespace": NAMESPACE,
        "Dimensions": dimension_sets(kind),
        "Metrics": [{"Name": name, "Unit": unit} for name, unit in units(kind).items()],
    }
    at_ms = int(moment(clock.now()).timestamp() * 1000)
    header = {"_aws": {"Timestamp": at_ms, "CloudWatchMetrics": [directive]}, ENVIRONMENT: environment}
    return header | named | {"event": kind.__name__} | fields | values


def _words(field: str) -> str:
    return "".join(word.capitalize() for word in field.split("_"))


def _json(line: Any, **_: Any) -> str:
    return msgspec.json.encode(line).decode()
