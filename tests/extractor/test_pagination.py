"""Walking pages."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.errors import RejectedError
from services.contracts.integration import Keyset, OnePage, PageNumber, Pagination
from services.extractor.pagination import Ask, Place, Turn, advance, ask, resumable

BY_ID = Keyset("id", "id > {after}", {"orderBy": "id asc"}, size_param="pageSize", size=3)
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
    assert ask(BY_ID, Place()) == Ask({"orderBy": "id asc", "pageSize": "3"}, "id > 0", "after 0")
    place = advance(BY_ID, Place(), shown(4, 5, 9))
    assert place is not None
    assert ask(BY_ID, place).clause == "id > 9"


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
    assert advance(BY_ID, Place(1, "Zed"), Turn(3, ("a", "B", "c"), "x")) == Place(2, "c", "c")


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


def test_only_keys_can_be_resumed_after_a_while() -> None:
    assert resumable(BY_ID)
    assert not resumable(NUMBERED)
