"""What several commands of the command line share: options, the recipe that was asked for, and where they print."""

import os
from pathlib import Path

import click
from rich.console import Console

DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="JAXAUDIT_DATA_DIR",
    help="Where the official files of data sets are.  [default: JAXAUDIT_DATA_DIR, or the folder of TFDS]",
)
CELL = click.option("--cell", metavar="PAIR-CLIENTS", help="One cell of a run with several, as in worst-200.")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Replace a field, as in population.pair=worst."
)


def page() -> Console:
    """Where a command prints: the terminal, or a page of 110 columns where there is none."""
    console = Console()
    # A pipe has no width; tables and sentences are laid out for a page.
    return console if console.is_terminal else Console(width=110)


def wanted_recipe(recipe: str, overrides: tuple[str, ...], data_dir: Path | None, **options):
    """The recipe that was asked for: a name or a file, with fields replaced by --set and by other options.

    Args:
      recipe: name or path.
      overrides: PATH=VALUE each.
      data_dir: of the official files, or None.
      options: values of fields of the recipe; None leaves a field as it is.

    Returns:
      Recipe.

    Raises:
      ValueError: in one line.
    """
    from . import config

    if data_dir:
        os.environ["JAXAUDIT_DATA_DIR"] = str(data_dir)
    replaced = dict(config.parse_override(text) for text in overrides)
    return config.load(recipe, replaced | {name: value for name, value in options.items() if value is not None})
