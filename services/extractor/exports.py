"""An export: a job that the vendor runs for us, created, asked about until it is done, and then downloaded like a list.

A job is never taken up again after a restart: another one is created, and the vendor forgets the first in its time.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

from services.contracts.access import Path
from services.contracts.errors import RejectedError, RetryableError
from services.contracts.ports import Clock
from services.contracts.reading import Export
from services.contracts.times import UtcTime
from services.extractor.answers import Answer
from services.extractor.fetch import Caller, Calls, Got
from services.extractor.meanings import json_of, terms_of, texts_at
from services.extractor.pagination import Ask
from services.extractor.plan import Spec
from services.extractor.raw_json import split_path
from services.extractor.requests import Scope, one_request, told

QUESTION_MAX_S: Final = 60.0  # between two questions, so that the lease sees us move

Job = Mapping[str, str]  # what a job gives to the templates of its download


async def run_export(
    caller: Caller,
    clock: Clock,
    spec: Spec,
    export: Export,
    scope: Scope,
    *,
    calls: Calls | None = None,
    background: bool = True,
) -> Got[Job]:
    """A new job, done: `{job}` for the templates of the endpoint's pages. `scope` fills those that create it.

    Shape:  the times are those of the request that created it: what changes afterwards need not be in it.

    Errors: as `Caller.get`; RetryableError `timeout` for a job that is not done after `Export.most_s` seconds,
            `bad_answer` for an answer without id or status; RejectedError `vendor_error` for a job that failed.
    Source: RFC 9110 15.3.3 (202 Accepted: a monitor that tells when it is done), as bulk queries, report and export
            jobs follow it
    """
    terms, site = terms_of(spec), await caller.site()
    values = told(site, spec, Ask(), scope)
    create = one_request(site, spec, export.create, values, body=export.body)
    created = await caller.get(create, partial(_text, export.id), terms=terms, calls=calls, background=background)
    job, until = {"job": created.value}, clock.monotonic() + export.most_s
    while True:
        await clock.sleep(min(export.every_s, QUESTION_MAX_S))
        asked = one_request(await caller.site(), spec, export.poll, {**values, **job})
        got = await caller.get(asked, partial(_text, export.status), terms=terms, calls=calls, background=background)
        if got.value in export.done:
            return Got(job, created.observed_at, created.earliest_at)
        if got.value in export.failed:
            raise RejectedError(f"{asked.source}: the export ended as {got.value!r}", code="vendor_error")
        if clock.monotonic() >= until:
            what = f"{asked.source}: the export is {got.value!r} after {export.most_s:g} seconds"
            raise RetryableError(what, code="timeout")


def _text(path: Path, answer: Answer, _: UtcTime) -> str:
    found = next(texts_at(json_of(answer), split_path(path)), None)
    if found is None:
        raise RetryableError(f"the answer has nothing at {path!r}", code="bad_answer")
    return found
