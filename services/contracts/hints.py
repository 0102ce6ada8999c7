"""What a person who wrote something unknown probably meant, and what there is."""

import difflib
from collections.abc import Iterable


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """`Did you mean 'x'?`, or nothing where nothing is close."""
    close = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else ""


def known_here(known: Iterable[object]) -> str:
    """All there is."""
    return f"Known here: {', '.join(sorted(map(str, known)))}."
