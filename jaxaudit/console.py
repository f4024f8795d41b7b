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


class _OneOfSeveral(click.types.FloatParamType):
    """A number of an option that is repeated for several."""

    def convert(self, value, param, ctx):
        """Refuse a list in one word, which is what many programs take."""
        if isinstance(value, str) and "," in value:
            self.fail(f"{value!r} is not a valid float; repeat {param.opts[0]} for several", param, ctx)
        return super().convert(value, param, ctx)


SEVERAL = _OneOfSeveral()


def about_scores(command):
    """Options of the commands that take scores or counts."""
    for option in (
        click.option(
            "--failures", is_flag=True, help="Count scores that are not finite as errors, instead of refusing them."
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Of the split into pilot and certifying scores, and of the coins for independent samples. Choose it "
            "beforehand.",
        ),
        click.option(
            "--method",
            # The names of bounds.METHODS, without the half second that importing them takes.
            type=click.Choice(["union", "cc-cp", "pc-cp", "band", "cc-anytime", "pc-anytime"]),
            help="Certificate.  [default: the best that is sound for the design]",
        ),
        click.option(
            "--design",
            type=click.Choice(["paired", "nested", "independent", "labelled"]),
            help="How the trials were made: h0[i] and h1[i] share a draw; they do, and h1[i] is h0[i] plus the same "
            "shift >= 0 in every trial; two samples of fixed size; a fair coin for every trial.  [default: not "
            "declared, which assumes nothing]",
        ),
    ):
        command = option(command)
    return command


def checked_confidence(confidence: float | None, otherwise: float) -> float:
    """The confidence that was asked for, or another where none was.

    Raises:
      ValueError: where it is none.
    """
    if confidence is not None and not 0 < confidence < 1:
        raise ValueError(f"--confidence is {confidence}, allowed are numbers strictly between 0 and 1")
    return otherwise if confidence is None else confidence


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
