"""Templates: `{name}` in a text of a mapping file, filled with values. Anything else in braces stands for itself."""

import re
from collections.abc import Mapping

from services.contracts.errors import UsageError

_NAME = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def names_in(template: str) -> frozenset[str]:
    """The names a template asks for."""
    return frozenset(_NAME.findall(template))


def fill(template: str, values: Mapping[str, str]) -> str:
    """`template` with every `{name}` replaced by its value; values are not looked into again.

    Errors: UsageError for a name without a value. Values never appear in it.
    """
    missing = sorted(names_in(template) - values.keys())
    if missing:
        known = ", ".join(sorted(values)) or "nothing"
        raise UsageError(
            f"{template!r} asks for {{{missing[0]}}}, which has no value",
            code="bad_mapping",
            remedy=f"Known here: {known}. A missing credential is given with `avesa setup-service`.",
        )
    return _NAME.sub(lambda found: values[found.group(1)], template)
