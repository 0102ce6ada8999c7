"""The vendor's times: text of whole seconds in UTC on the wire, integers of seconds since 1970 inside."""

from datetime import UTC, datetime, timedelta

DAY_S = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


def seconds_of(moment: datetime) -> int:
    """The whole second `moment` (aware) lies in, cut and never rounded."""
    return (moment - _EPOCH) // _SECOND


def text_of(seconds: int) -> str:
    """`2026-01-01T00:00:00Z`, the vendor's spelling."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment_of(text: str) -> datetime:
    """An aware time from the vendor's spelling or a client's; one without a zone is UTC. Errors: ValueError."""
    moment = datetime.fromisoformat(text.strip())
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def midnight_of(seconds: int) -> int:
    return seconds - seconds % DAY_S
