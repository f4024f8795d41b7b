"""How a page is laid out: titles, tables without numbers yet, and sentences under their headings."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text


def say(console: Console, what: str, text: str, of: dict | None = None) -> None:
    """Print a sentence under its heading, with the name of the cell it is `of`; nothing for an empty one."""
    if text:
        console.print(Text.assemble((f"{what}{' of ' + of['name'] if of else ''}: ", "bold"), text))


def framed(rows: Sequence[dict] = ()) -> Table:
    """An empty table; where a bound among its rows has a star it says what that means."""
    result = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    if any(row["censored"] for row in rows):
        result.caption = Text(
            "* No error of the rarer kind was seen: limited by the number of trials, not a measurement of ε."
        )
        result.caption_style, result.caption_justify = "yellow", "left"
    return result


def titled(title: str, table: Table) -> Group:
    """A table below its title, which is as wide as the page and not as the table."""
    return Group(Text(title, "bold"), table)


def add_columns(table: Table, left: Sequence[str], right: Sequence[str]) -> None:
    """Columns of words, and then of numbers, that no terminal is too narrow for."""
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
