"""Walking pages."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.errors import RejectedError
from services.contracts.reading import (
    Cursor,
    Keyset,
    LinkHeader,
    NextUrl,
    Offset,
    OnePage,
    PageNumber,
    Pagination,
    TimeKeyset,
    TimeWindow,
)
from services.extractor.pagination import (
    STEPS_BACK_MAX,
    Ask,
    Place,
    Row,
    Sighting,
    Turn,
    Window,
    advance,
    ask,
    halved,
    moves,
    resting,
    resumable,
    together,
    window_after,
    window_at,
)

BY_ID = Keyset("id", "id > {after}", order={"orderBy": "id asc"}, size_param="pageSize", size=3)
NUMBERED = PageNumber(size_param="per_page", size=3)


def shown(*keys: int | str) -> Turn:
    return Turn(len(keys), tuple(str(key) for key in keys), repr(keys))


def walked(pagination: Pagination, answer: Callable[[Place], Turn], turns_max: int = 50) -> int:
    place: Place | None = Place()
    for turn in range(turns_max):
        assert place is not None
        place = advance(pagination, place, answer(place))
        if place is None:
            return turn + 1
    raise AssertionError("walked for ever")


def test_a_keyset_walk_asks_for_what_comes_after_the_last_key() -> None:
    values = {"after": "0", "size": "3"}
    assert ask(BY_ID, Place()) == Ask({"orderBy": "id asc", "pageSize": "3"}, "id > {after}", "after 0", values)
    place = advance(BY_ID, Place(), shown(4, 5, 9))
    assert place is not None
    assert ask(BY_ID, place).values["after"] == "9"


def test_a_keyset_walk_may_begin_with_nothing() -> None:
    by_param = Keyset("id", param="since_id", start=None, size=3)
    assert ask(by_param, Place()) == Ask({}, None, "page 1", {"size": "3"})
    assert ask(by_param, Place(1, "9")).params == {"since_id": "9"}


def test_a_numbered_walk_starts_where_the_vendor_starts() -> None:
    zero = PageNumber(param="p", first=0, size=2)
    place = advance(zero, Place(), shown(1, 2))
    assert place is not None
    assert [ask(zero, Place()).params, ask(zero, place).params] == [{"p": "0"}, {"p": "1"}]


@pytest.mark.parametrize("pagination", [BY_ID, NUMBERED])
def test_a_short_page_is_the_last(pagination: Pagination) -> None:
    assert advance(pagination, Place(), shown(1, 2)) is None
    assert advance(pagination, Place(), shown()) is None
    assert advance(pagination, Place(), shown(1, 2, 3)) is not None


def test_one_page_is_one_page() -> None:
    assert ask(OnePage(), Place()) == Ask()
    assert advance(OnePage(), Place(), shown(*range(1000))) is None


@pytest.mark.parametrize(
    ("place", "turn"),
    [
        (Place(), shown(1, 3, 2)),  # not sorted
        (Place(), shown(1, 2, 2)),  # not unique
        (Place(1, "3"), shown(1, 2, 3)),  # the clause is ignored
        (Place(1, "3"), shown(2)),  # ... on the last page too
        (Place(1, "b"), Turn(3, ("c", "a", "b"), "x")),  # ends where it began
        (Place(), Turn(3, (), "x")),  # full, and no key anywhere
    ],
)
def test_a_keyset_walk_that_does_not_advance_is_an_error(place: Place, turn: Turn) -> None:
    with pytest.raises(RejectedError) as raised:
        advance(BY_ID, place, turn)
    assert raised.value.code == "pages_do_not_advance"


def test_keys_that_are_words_need_not_be_in_our_order() -> None:
    assert advance(BY_ID, Place(1, "Zed"), Turn(3, ("a", "B", "c"), "x")) == Place(2, "c", "x")


def test_a_vendor_that_ignores_the_page_number_is_noticed() -> None:
    with pytest.raises(RejectedError):
        walked(NUMBERED, lambda place: shown(1, 2, 3))


@given(st.integers(0, 20), st.integers(1, 20))
def test_a_circle_of_pages_is_always_noticed(before: int, length: int) -> None:
    def answer(place: Place) -> Turn:
        page = place.pages if place.pages < before else before + (place.pages - before) % length
        return Turn(3, (f"key{page}",), f"page{page}")

    for pagination in (NUMBERED, BY_ID):
        with pytest.raises(RejectedError):
            walked(pagination, answer, turns_max=200)


@given(st.lists(st.integers(1, 10_000), unique=True, max_size=60))
def test_a_keyset_walk_reads_every_key_once(ids: list[int]) -> None:
    held, read = sorted(ids), list[int]()

    def answer(place: Place) -> Turn:
        page = [key for key in held if key > int(place.after or 0)][:3]
        read.extend(page)
        return shown(*page)

    walked(BY_ID, answer)
    assert read == held


CURSOR = Cursor(path="next", param="c")
ROWS = Offset(size=3)
BY_TIME = TimeKeyset("t", "id", "{after_time}/{after}", size=2)
WINDOWS = TimeWindow(cap=10, start="2026-01-01", longest_s=86_400 * 4)


def rows(*contents: int, more: bool | None = None, total: int | None = None) -> Turn:
    return Turn(
        len(contents), digest=repr(contents), rows=tuple(Row(one, one) for one in contents), more=more, total=total
    )


def went(place: Place | None) -> Place:
    assert place is not None
    return place


def test_a_page_may_tell_how_many_there_are() -> None:
    by_more, by_pages = PageNumber(size=3, more="m"), PageNumber(size=3, pages="p")
    by_total, until_empty = PageNumber(size=3, total="t"), PageNumber(size=3, until="empty_page")
    one = Turn(1, digest="x")
    full = Turn(3, digest="y")
    assert advance(by_more, Place(), msgspec.structs.replace(one, more=True)) is not None
    assert advance(by_more, Place(), msgspec.structs.replace(full, more=False)) is None
    assert advance(by_more, Place(), full) is not None  # it says nothing: as if it had never been promised
    assert advance(by_pages, Place(1), msgspec.structs.replace(full, pages=2)) is None
    assert advance(by_pages, Place(), msgspec.structs.replace(one, pages=2)) is not None
    second = went(advance(by_total, Place(), msgspec.structs.replace(full, total=5)))
    assert advance(by_total, second, Turn(2, digest="z", total=5)) is None
    assert advance(by_total, Place(), Turn(0, digest="z", total=5)) is None
    assert advance(until_empty, Place(), one) is not None
    assert advance(until_empty, Place(), Turn(0)) is None


def test_a_cursor_goes_on_until_there_is_none() -> None:
    place = went(advance(CURSOR, Place(), Turn(2, digest="x", cursor="a")))
    assert ask(CURSOR, place).params == {"c": "a"}
    assert ask(CURSOR, Place()).params == {}
    assert advance(CURSOR, place, Turn(2, digest="y")) is None
    assert advance(CURSOR, place, Turn(2, digest="y", cursor="b", more=False)) is None
    assert advance(CURSOR, place, Turn(2, digest="y", cursor="b", end=True)) is None
    assert advance(CURSOR, place, Turn(2, digest="y", cursor="b", end=False)) is not None


def test_an_empty_page_is_no_end_while_its_cursor_moves_on() -> None:
    place = Place()
    for number in range(20):
        place = went(advance(CURSOR, place, Turn(0, digest="", cursor=str(number))))
    assert advance(CURSOR, place, Turn(0, digest="", cursor="19")) is None  # a scroll at its end


def test_a_scroll_has_one_cursor_for_all_its_pages() -> None:
    place = Place()
    for number in range(20):
        place = went(advance(CURSOR, place, Turn(2, digest=str(number), cursor="scroll")))
    assert advance(CURSOR, place, Turn(0, cursor="scroll")) is None


def test_the_last_record_may_be_the_cursor() -> None:
    by_last = Cursor(last="id", param="after")
    place = went(advance(by_last, Place(), Turn(2, digest="x", cursor="7")))
    assert advance(by_last, place, Turn(0)) is None
    with pytest.raises(RejectedError):
        advance(by_last, place, Turn(2, digest="y", cursor="7"))


@pytest.mark.parametrize(
    ("pagination", "turn"),
    [
        (CURSOR, Turn(2, digest="x", more=True)),
        (CURSOR, Turn(2, digest="x", end=False)),
        (Cursor(last="id", param="after"), Turn(2, digest="x")),  # its last record has none
    ],
)
def test_where_there_is_more_a_missing_cursor_is_no_end(pagination: Cursor, turn: Turn) -> None:
    with pytest.raises(RejectedError, match="no cursor"):
        advance(pagination, Place(), turn)


@pytest.mark.parametrize("pagination", [NextUrl("next", size_param="n", size=9), LinkHeader(size_param="n", size=9)])
def test_an_address_is_followed_until_there_is_none(pagination: Pagination) -> None:
    assert ask(pagination, Place()).params == {"n": "9"}
    place = went(advance(pagination, Place(), Turn(1, digest="x", cursor="https://x/2")))
    assert ask(pagination, place).address == "https://x/2"
    assert ask(pagination, place).params == {}
    assert advance(pagination, place, Turn(1, digest="y")) is None
    with pytest.raises(RejectedError):
        advance(pagination, place, Turn(1, digest="y", cursor="https://x/2"))


def test_an_offset_walk_reads_on_from_a_row_it_knows() -> None:
    place = went(advance(ROWS, Place(), rows(1, 2, 3)))
    assert ask(ROWS, place).params == {"offset": "2", "limit": "3"}
    assert ask(ROWS, went(advance(ROWS, place, rows(3, 4, 5)))).params["offset"] == "4"
    assert advance(ROWS, place, rows(3, 4)) is None


@pytest.mark.parametrize("page", [(4, 5, 6), (4,), ()])
def test_an_offset_walk_that_knows_no_row_steps_back_even_at_the_end(page: tuple[int, ...]) -> None:
    place = went(advance(ROWS, went(advance(ROWS, Place(), rows(1, 2, 3))), rows(3, 7, 8)))
    assert went(advance(ROWS, place, rows(*page))).offset == 2
    assert went(advance(ROWS, msgspec.structs.replace(place, offset=1), rows(*page))).offset == 0


def test_an_offset_walk_does_not_step_back_for_ever() -> None:
    place = Place(2, offset=9, known=(1, 2), back=STEPS_BACK_MAX)
    with pytest.raises(RejectedError):
        advance(ROWS, place, rows(4, 5, 6))


def test_a_time_keyset_walk_asks_for_what_comes_after_the_pair() -> None:
    turn = Turn(2, ("5", "9"), "x", times=("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z"))
    assert ask(BY_TIME, Place()).values == {"size": "2"}
    place = went(advance(BY_TIME, Place(), turn))
    assert ask(BY_TIME, place).values == {"after": "9", "after_time": "2026-01-01T00:00:00.5Z", "size": "2"}
    local = msgspec.structs.replace(BY_TIME, format="%Y-%m-%d %H:%M:%S")
    assert ask(local, place).values["after_time"] == "2026-01-01 00:00:00"
    assert advance(BY_TIME, place, Turn(1, ("1",), "y", times=("2026-01-02T00:00:00Z",))) is None


@pytest.mark.parametrize(
    "turn",
    [
        Turn(2, ("5", "9"), "y", times=("2026-01-01T00:00:01Z", "2025-01-01T00:00:00Z")),  # not sorted
        Turn(2, ("5", "9"), "y", times=("2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z")),  # not filtered
        Turn(2, ("8", "9"), "y", times=("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")),  # ends where it began
        Turn(2, ("12", "11"), "y", times=("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z")),  # sorted by time alone
        Turn(1, ("8",), "y", times=("2026-01-01T00:00:00Z",)),  # the last page, but it came before
        Turn(2, (), "y"),
    ],
)
def test_a_time_keyset_walk_that_does_not_advance_is_an_error(turn: Turn) -> None:
    with pytest.raises(RejectedError):
        advance(BY_TIME, Place(1, "9", after_time="2026-01-01T00:00:00Z"), turn)


def test_local_times_go_back_an_hour_in_autumn_and_times_we_cut_are_shown_again() -> None:
    autumn = Turn(2, ("3", "4"), "y", times=("2026-11-01 01:59:00", "2026-11-01 01:00:00"))
    assert advance(BY_TIME, Place(), autumn) is not None
    cut = msgspec.structs.replace(BY_TIME, format="rfc3339_s")
    again = Turn(2, ("3", "11"), "y", times=("2026-01-01T00:00:00.2Z", "2026-01-01T00:00:01Z"))
    assert advance(cut, Place(1, "9", after_time="2026-01-01T00:00:00.7Z"), again) is not None


def test_two_walks_agree_when_the_second_saw_all_that_the_first_did() -> None:
    def sighting(*pages: list[tuple[int, int]]) -> Sighting:
        seen = Sighting()
        for number, page in enumerate(pages):
            seen.note(number, [Row(*row) for row in page])
        return seen

    still = sighting([(1, 1), (2, 1)], [(3, 1)])
    assert sighting([(1, 1), (2, 2)], [(3, 1), (4, 1)]).confirms(still)  # updated in place, and one is new
    assert not sighting([(1, 1), (3, 1)]).confirms(still)  # one is gone: what was behind it had moved up
    assert not still.confirms(sighting([(1, 1), (2, 1)], [(3, 1), (1, 2)]))  # one moved to the end
    assert not still.confirms(sighting([(1, 1)], [(2, 1)], [(3, 1), (1, 1)]))  # the same, its content as it was
    assert still.confirms(sighting([(1, 1), (2, 1)], [(2, 1), (3, 1)]))  # one was pushed back by a new one


def test_windows_grow_while_there_is_little_in_them_and_end_now() -> None:
    now = "2026-01-08T00:00:00.000000Z"
    place, lengths = Place(), []
    while True:
        window = window_at(WINDOWS, place, None, now)
        lengths.append((window.from_at[8:10], window.to_at[8:10]))
        if window.last:
            break
        place = window_after(window, 1, WINDOWS.cap)
    assert lengths == [("01", "02"), ("02", "04"), ("04", "08")]
    assert window_at(WINDOWS, Place(), "2026-01-07T23:00:00.000000Z", now).last


def test_a_window_that_is_full_is_halved_down_to_the_shortest() -> None:
    window = Window("2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:03.000000Z", last=False)
    place = halved(WINDOWS, window)
    assert (place.from_at, place.length_s) == (window.from_at, 1.5)
    assert halved(WINDOWS, window_at(WINDOWS, place, None, "2027")).length_s == 1.0
    with pytest.raises(RejectedError):
        halved(WINDOWS, Window(window.from_at, "2026-01-01T00:00:01.000000Z", last=True))


def test_two_parts_of_a_page_are_one_turn() -> None:
    one = Turn(2, ("1", "2"), "a", first="1", last="2", oldest="2026", newest="2027", cursor="x")
    two = Turn(1, (), "b", first="3", last="3", oldest="2025", newest="2026", cursor="y")
    both = together(together(Turn(0), one), two)
    assert (both.count, both.keys, both.first, both.last, both.cursor) == (3, ("1", "2"), "1", "3", "y")
    assert (both.oldest, both.newest) == ("2025", "2027")
    assert both.digest not in ("a", "b", "")


def test_only_what_does_not_move_can_be_resumed_after_a_while() -> None:
    lasting = Cursor(path="next", lasts=True)
    assert all(resumable(kind) for kind in (BY_ID, BY_TIME, WINDOWS, lasting))
    assert not any(resumable(kind) for kind in (NUMBERED, ROWS, CURSOR, NextUrl("next"), LinkHeader(), OnePage()))


def test_a_place_that_is_kept_is_small() -> None:
    place = Place(9, "7", cursor="c", offset=9, known=tuple(range(1000)), from_at="2026", length_s=3)
    assert resting(ROWS, place) == Place(9)
    assert resting(WINDOWS, place) == Place(from_at="2026", length_s=3)
    assert resting(BY_ID, place) is place


def test_rows_move_unseen_under_numbers_and_offsets_that_do_not_overlap() -> None:
    assert moves(NUMBERED)
    assert moves(Offset(overlap=0))
    assert moves(LinkHeader(numbered=True))
    assert not any(moves(kind) for kind in (ROWS, BY_ID, CURSOR, LinkHeader(), OnePage()))


@pytest.mark.parametrize(
    "pagination",
    [Keyset("id", size=1000), TimeKeyset("t", "id", "c", size=1000), PageNumber(size=1000), Offset(size=1000)],
)
def test_a_short_page_of_a_round_number_may_be_cut_off(pagination: Pagination) -> None:
    def turned(count: int) -> Turn:
        keys = tuple(str(number) for number in range(1, count + 1))
        return Turn(count, keys, digest=str(count), times=keys if isinstance(pagination, TimeKeyset) else ())

    for count in (10, 25, 50, 200, 500, 1000):
        assert advance(pagination, Place(), turned(count)) is not None
    for count in (0, 1, 9, 11, 49, 999):
        assert advance(pagination, Place(), turned(count)) is None


def test_an_overlap_of_a_round_number_is_the_end() -> None:
    offset = Offset(size=100, overlap=10)
    place = went(advance(offset, Place(), Turn(50, digest="x", rows=(Row(1, 1),))))
    assert advance(offset, place, Turn(10, digest="y", rows=(Row(1, 1),))) is None
