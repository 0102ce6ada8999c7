"""What a person typed, as the name that is meant."""

from collections.abc import Iterable, Mapping

from services.contracts.errors import UsageError
from services.contracts.hints import did_you_mean


def service_meant(typed: str, integrations: Mapping[str, object], where: str = "--service") -> str:
    """The service (with its instance) that `typed` names; `Microsoft365:Berlin` is `microsoft_365:Berlin`.

    Errors: UsageError `unknown_service` that lists what there is, or `usage` for an instance that is no name.
    """
    word, colon, instance = typed.strip().partition(":")
    alike = {plain(name): name for name in sorted(integrations)}
    name = word if word in integrations else alike.get(plain(word))
    if name is None:
        hint = did_you_mean(word, integrations)
        known = f"Known: {', '.join(sorted(integrations)) or 'none'}; --mappings DIR adds your own."
        raise UsageError(
            f"there is no service {word!r}", code="unknown_service", remedy=f"{hint} {known}".strip(), where=where
        )
    if colon and not (instance and set(instance) <= _INSTANCE):
        remedy = f"After the colon stand letters, digits, '_', '.' or '-': {name}:berlin."
        raise UsageError(f"{typed!r} is no name of a service", where=where, remedy=remedy)
    return f"{name}{colon}{instance}"


_INSTANCE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")  # contracts: ServiceName


def plain(word: str) -> str:
    """What is left of a name when spelling does not matter."""
    return "".join(letter for letter in word.lower() if letter.isalnum())


def listed(words: Iterable[str]) -> str:
    """`a, b and c`."""
    *most, last = list(words) or [""]
    return f"{', '.join(most)} and {last}" if most else last
