"""What a vendor answered, opened: the items of its list, each as the vendor wrote it, and what stands around them.
Pure, but for the temporary file that a long answer lies in.

The rest flow on: an item that is no JSON is told beside the others. Only an answer that cannot be taken apart at all is
an error, and a retryable one: it was cut off, or was never a list.
"""

import contextlib
import csv
import io
import tempfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from typing import IO, Final, Literal, Self

import msgspec
from msgspec.structs import replace

from services.contracts.errors import RejectedError, RetryableError
from services.contracts.json_text import without_lone_surrogates
from services.extractor.raw_json import (
    BYTE_ORDER_MARK,
    CutOffError,
    KeyPath,
    UnreadableError,
    compact,
    hollow,
    split_items,
)

Format = Literal["json", "ndjson", "csv"]

BODY_BYTES_MAX: Final = 128 * 1024 * 1024  # in memory; one record of 20 MB on a page of a thousand is no reason to fail
FILE_BYTES_MAX: Final = 16 * 1024 * 1024 * 1024  # on disk: an export
SPOOL_BYTES: Final = 8 * 1024 * 1024  # a long answer up to here stays in memory
BATCH_BYTES: Final = 4 * 1024 * 1024  # of a long answer, opened at a time
CHUNK_BYTES: Final = 256 * 1024
NO_CONTENT: Final = 204
_GZIP: Final = b"\x1f\x8b"  # RFC 1952 2.3.1; no JSON begins so, and no CSV in UTF-8
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS

csv.field_size_limit(BODY_BYTES_MAX)  # process-wide, for the module has no other; its own is 128 KiB


class Answer(msgspec.Struct, frozen=True):
    """What came back. Names of `headers` are lower case.

    A long one lies in `file`, with an empty `body`, and is read in `batches`; a batch comes `opened`.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}
    file: IO[bytes] | None = None
    opened: "Opened | None" = None


class Opened(msgspec.Struct, frozen=True):
    """The items of an answer's list in order, compact; what among them is no JSON, with the reason; and the answer
    without them, compact, where it is an object: its list is empty there (b"" where the answer is the list)."""

    items: list[bytes]
    unreadable: list[tuple[bytes, str]] = []
    envelope: bytes = b""


def open_answer(answer: Answer, path: KeyPath = (), format: Format = "json") -> Opened:
    """The items of the list at `path` of a whole answer, or of a batch of a long one.

    Shape:  `*` in the path is every item of the list there; below it a list that is missing or null holds nothing.
            No content (204), and null for the list, are no items.
    Errors: RetryableError `bad_answer` for a body that ends early or holds no list at `path`; RejectedError `too_large`
            for a compressed one that grows beyond BODY_BYTES_MAX.
    """
    if answer.opened is not None:
        return answer.opened
    if answer.status == NO_CONTENT:
        return Opened([])
    body = unpacked(answer.body)
    match format:
        case "json":
            return _open_json(body.removeprefix(BYTE_ORDER_MARK), path)
        case "ndjson":
            return _open_lines(body)
        case "csv":
            return _opened(_rows(io.BytesIO(body)))


def _open_json(body: bytes, path: KeyPath) -> Opened:
    with contextlib.suppress(UnreadableError):
        return _taken_apart(compact(body), path)
    repaired = without_lone_surrogates(body)
    try:
        return _taken_apart(compact(repaired), path)
    except UnreadableError as err:
        whole = err
    try:
        items, around = split_items(repaired, path)
    except (CutOffError, UnreadableError) as err:
        raise RetryableError(f"the answer is no readable list of records ({err})", code="bad_answer") from whole
    opened = _opened(map(_compacted, items))
    try:
        return replace(opened, envelope=compact(around) if path else b"")
    except UnreadableError as err:  # without it nobody knows whether this is the last page
        raise RetryableError(f"what stands around the records cannot be read ({err})", code="bad_answer") from whole


def _taken_apart(data: bytes, path: KeyPath) -> Opened:
    items: list[bytes] = []
    around = hollow(data, path, items)
    if around is None:
        raise RetryableError(f"the answer has nothing at {'.'.join(path)!r}", code="bad_answer")
    return Opened(items, [], around if path else b"")


Item = bytes | tuple[bytes, str]  # readable, or the bytes and the reason why not


def _compacted(item: bytes) -> Item:
    try:
        return compact(item)
    except UnreadableError as err:
        return item, str(err)


def _opened(found: Iterable[Item]) -> Opened:
    opened = Opened([], [])
    for item in found:
        if isinstance(item, bytes):
            opened.items.append(item)
        else:
            opened.unreadable.append(item)
    return opened


def _open_lines(body: bytes) -> Opened:
    """NDJSON: one value a line. A last line without an end that cannot be read was cut off."""
    lines = [line for line in body.removeprefix(BYTE_ORDER_MARK).split(b"\n") if line and not line.isspace()]
    with contextlib.suppress(UnreadableError):
        return Opened([compact(line) for line in lines])
    found = [_compacted(without_lone_surrogates(line)) for line in lines]
    if not isinstance(found[-1], bytes) and not body.endswith(b"\n"):
        raise RetryableError("the last line ends early", code="bad_answer")
    return _opened(found)


class _Lines:
    """Lines of a text, as `csv.reader` takes them; `last` is the one it took last, `ended`: it asked for another."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self.last, self.ended = text, "", False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        try:
            self.last = next(self._text)
        except StopIteration:
            self.ended = True
            raise
        return self.last


def _rows(file: IO[bytes]) -> Iterator[Item]:
    """CSV: each row as a JSON object of strings, named by the first row.

    Shape:  commas, quotes doubled inside quotes, line breaks inside quotes; UTF-8, with or without its mark; empty
            lines are nothing. A name that stands there twice means the last column of that name.
    Errors: RetryableError `bad_answer` where the text ends inside a row.
    Source: RFC 4180
    """
    text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    lines = _Lines(text)
    reader, encode = csv.reader(lines), msgspec.json.Encoder().encode
    held: tuple[bytes, str] | None = None  # the last row, while it may be the beginning of a longer one
    try:
        names = next(reader, [])
        for row in reader:
            if lines.ended:  # before the row did: a quote is open
                raise RetryableError("the last row ends early", code="bad_answer")
            if held is not None:
                yield held
                held = None
            if len(row) == len(names):
                try:
                    yield encode(dict(zip(names, row, strict=True)))
                except UnicodeEncodeError as err:
                    yield _spelled(row), f"not UTF-8: {err.reason}"
            elif row:
                held = _spelled(row), f"{len(row)} fields where the first row has {len(names)}"
        if held is not None:
            if not lines.last.endswith(("\n", "\r")):
                raise RetryableError("the last row ends early", code="bad_answer")
            yield held
    except csv.Error as err:
        raise RetryableError(f"the answer is no readable CSV ({err})", code="bad_answer") from err
    finally:
        text.detach()  # whoever opened the file closes it


def _spelled(row: list[str]) -> bytes:
    spelled = io.StringIO()
    csv.writer(spelled, lineterminator="").writerow(row)
    return spelled.getvalue().encode("utf-8", "surrogateescape")


# -- long answers -----------------------------------------------------------------------------------------------------
def spool() -> IO[bytes]:
    """Somewhere to put an answer of any length; it is gone when it is closed."""
    return tempfile.SpooledTemporaryFile(SPOOL_BYTES)


def whole(answer: Answer) -> Answer:
    """A long answer, plain: its file unpacked to the end, so that what was cut off is noticed before any of it is used.

    Errors: RetryableError `bad_answer`; RejectedError `too_large` beyond FILE_BYTES_MAX.
    """
    packed = answer.file
    if packed is None:
        return answer
    packed.seek(0)
    compressed = packed.read(len(_GZIP)) == _GZIP
    packed.seek(0)
    if not compressed:
        return answer
    plain = spool()
    try:
        with packed:
            for chunk in _unzipped(iter(lambda: packed.read(CHUNK_BYTES), b""), FILE_BYTES_MAX):
                plain.write(chunk)
    except BaseException:
        plain.close()
        raise
    plain.seek(0)
    return replace(answer, file=plain)


def batches(answer: Answer, format: Format) -> Generator[Answer, None, None]:
    """The items of a long NDJSON or CSV answer, some BATCH_BYTES at a time, and one batch even if there are none: for
    whatever reads a page.

    Errors: RetryableError `bad_answer` where it ends early; RejectedError `too_large` for a line beyond BODY_BYTES_MAX.
    """
    body = b"" if answer.status == NO_CONTENT else unpacked(answer.body)
    file = answer.file if answer.file is not None else io.BytesIO(body)
    found = _batched(_rows(file)) if format == "csv" else map(_open_lines, _blocks(file))
    some = False
    for opened in found:
        some = True
        yield Answer(answer.status, b"", answer.headers, None, opened)
    if not some:
        yield Answer(answer.status, b"", answer.headers, None, Opened([]))


def _batched(found: Iterator[Item]) -> Iterator[Opened]:
    batch: list[Item] = []
    size = 0
    for item in found:
        batch.append(item)
        size += len(item if isinstance(item, bytes) else item[0])
        if size >= BATCH_BYTES:
            yield _opened(batch)
            batch, size = [], 0
    if batch:
        yield _opened(batch)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Whole lines, BATCH_BYTES or a little more at a time."""
    while block := file.read(BATCH_BYTES):
        if not block.endswith(b"\n"):
            rest = file.readline(BODY_BYTES_MAX)
            if len(rest) == BODY_BYTES_MAX:
                raise RejectedError(f"a line of more than {BODY_BYTES_MAX} bytes", code="too_large")
            block += rest
        yield block


def unpacked(body: bytes) -> bytes:
    """A body that is compressed though no header says so (a `.gz` to download), plain; any other as it is.

    Errors: RetryableError `bad_answer`; RejectedError `too_large` beyond BODY_BYTES_MAX.
    Source: RFC 1952
    """
    return b"".join(_unzipped(iter([body]), BODY_BYTES_MAX)) if body.startswith(_GZIP) else body


def _unzipped(chunks: Iterator[bytes], bytes_max: int) -> Iterator[bytes]:
    """Members that follow one another are one text: RFC 1952 2.2."""
    size, member = 0, zlib.decompressobj(_GZIP_WINDOW)
    try:
        for packed in chunks:
            left = packed
            while left:
                if member.eof:
                    member = zlib.decompressobj(_GZIP_WINDOW)
                chunk = member.decompress(left, CHUNK_BYTES)
                left = member.unconsumed_tail or member.unused_data
                size += len(chunk)
                if size > bytes_max:
                    raise RejectedError(f"an answer that unpacks to more than {bytes_max} bytes", code="too_large")
                yield chunk
    except zlib.error as err:
        raise RetryableError(f"the compressed answer cannot be unpacked ({err})", code="bad_answer") from err
    if not member.eof:
        raise RetryableError("the compressed answer ends early", code="bad_answer")
