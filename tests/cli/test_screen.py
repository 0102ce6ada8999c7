"""Results on stdout, the rest on stderr; nothing but text where nobody sees colours."""

from io import StringIO

import pytest

from services.cli.screen import Screen, counted, lasting, printable

ROWS = [("tickets", 5, True), ("companies", None, False)]
COLUMNS = {"NAME": lambda row: row[0], "COUNT": lambda row: row[1], "READ": lambda row: row[2]}


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_is_plain_columns_where_there_is_no_terminal() -> None:
    screen = Screen(out := StringIO(), StringIO())
    screen.show(ROWS, COLUMNS)
    assert out.getvalue() == (
        "NAME       COUNT  READ\n"
        "tickets    5      yes\n"
        "companies  -      no\n"
    )  # fmt: skip


def test_nothing_is_cut_where_there_is_no_terminal() -> None:
    screen = Screen(out := StringIO(), StringIO())
    screen.show([("x" * 500,)], {"NAME": lambda row: row[0]})
    assert "x" * 500 in out.getvalue()


def test_a_terminal_gets_a_drawn_table() -> None:
    screen = Screen(out := Terminal(), StringIO())
    screen.show(ROWS, COLUMNS)
    assert "─" in out.getvalue()
    assert "companies" in out.getvalue()


def test_a_machine_gets_whole_records_one_a_line() -> None:
    screen = Screen(out := StringIO(), StringIO())
    screen.as_json = True
    screen.show([{"a": 1, "b": 2}, {"a": 3}], {"A": lambda row: row["a"]})
    screen.say("for people only")
    assert out.getvalue() == '{"a":1,"b":2}\n{"a":3}\n'


def test_an_empty_table_says_so_beside_the_results() -> None:
    screen = Screen(out := StringIO(), err := StringIO())
    screen.show([], COLUMNS, empty="nothing yet")
    assert (out.getvalue(), err.getvalue()) == ("", "nothing yet\n")


def test_work_is_announced_by_a_line_where_there_is_no_terminal() -> None:
    screen = Screen(StringIO(), err := StringIO())
    with screen.working("proving"):
        pass
    assert err.getvalue() == "proving ...\n"


@pytest.mark.parametrize("text", ["\x1b[31mred", "a\rb", "bell\x07", "\ud800"])
def test_a_vendors_words_do_not_steer_the_terminal(text: str) -> None:
    assert printable(text).isprintable()


def test_markup_in_a_value_stays_a_value() -> None:
    screen = Screen(out := Terminal(), err := Terminal())
    screen.show([("[bold]x[/nothing]",)], {"NAME": lambda row: row[0]})
    screen.alarm("[red]y[/nothing]")
    assert "[bold]x[/nothing]" in out.getvalue()
    assert "[red]y[/nothing]" in err.getvalue()


def test_one_is_not_many() -> None:
    assert (counted(1, "file"), counted(0, "file"), counted(2, "entry", "entries")) == (
        "1 file",
        "0 files",
        "2 entries",
    )


def test_a_time_is_told_in_the_largest_unit_without_a_fraction() -> None:
    assert [lasting(seconds) for seconds in (0, 0.5, 90, 300, 21_600, 86_400)] == [
        "0 s", "0.5 s", "90 s", "5 min", "6 h", "1 d",
    ]  # fmt: skip


def test_nothing_is_cut_on_a_narrow_terminal_either() -> None:
    screen = Screen(out := Terminal(), StringIO())
    screen.show([("finance/agreements/{agreement_id}/additions" * 5,)], {"PATH": lambda row: row[0]})
    assert "…" not in out.getvalue()
