"""Progress of a run on a terminal: trials per second and the time that is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def bars(shown: bool = True) -> Iterator[Callable]:
    """A progress bar for every stage of a run: the function to be called with the name and the trials of each."""
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    console = Console(stderr=True)
    # Into a file, rich would leave an empty line in the place of the bar.
    quiet = not console.is_terminal or not shown
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=quiet) as bar:
        preparing = bar.add_task("prepare", total=None, rate="data, training, recorded updates")

        def stage(name, trials):
            bar.update(preparing, total=1, completed=1, visible=False)
            task = bar.add_task(name, total=trials, rate="")

            def advance(done):
                bar.advance(task, done)
                speed = bar.tasks[task].speed
                bar.update(task, rate=f"{speed:,.0f} trials/s" if speed else "")

            return advance

        yield stage
