"""Progress of a run on a terminal: trials per second and the time that is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def bars(shown: bool = True) -> Iterator[Callable]:
    """A progress bar for every stage of a run: the function to be called with the name and the trials of each."""
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TextColumn("{task.fields[rate]}"),
    )
    console = Console(stderr=True)
    # Into a file, rich would leave an empty line in the place of the bar.
    quiet = not console.is_terminal or not shown
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=quiet) as bar:
        preparing = bar.add_task("prepare", total=None, done="", rate="data, training, recorded updates")

        def stage(name, trials):
            bar.update(preparing, total=1, completed=1, visible=False)
            task = bar.add_task(name, total=trials, done=f"0 of {trials:,}", rate="")

            def advance(done):
                bar.advance(task, done)
                speed, completed = bar.tasks[task].speed, int(bar.tasks[task].completed)
                rate = f"{speed:,.0f} trials/s" if speed else ""
                bar.update(task, done=f"{completed:,} of {trials:,}", rate=rate)

            return advance

        yield stage
