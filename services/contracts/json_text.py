"""JSON text as vendors really send it: the one repair that every door makes."""

import re

# Every escape in turn, so that a backslash is never read twice: a pair of surrogates, a lone one, another.
_ESCAPE = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
_SURROGATE_BYTES = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")  # a surrogate written as UTF-8, which UTF-8 forbids


def without_lone_surrogates(data: bytes) -> bytes:
    """Halves of a surrogate pair, which no text may hold, become U+FFFD; all else stays."""
    repaired = _ESCAPE.sub(lambda found: found[0] if found[2] is None else rb"\ufffd", data)
    return _SURROGATE_BYTES.sub("\ufffd".encode(), repaired)
