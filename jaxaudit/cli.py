"""The command line: `run`, `merge`, `report`, `data`, `list`, `doctor`, and the commands of `cli_bounds`.

Heavy modules are imported by the commands that need them, so that help and errors are immediate.
"""

from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import cli_bounds
from .console import CELL, DATA_DIR, SET, SEVERAL, page, wanted_recipe

_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """Leaves a closed pipe to `__main__`; click would end with 1, which is a verdict here."""

    def make_context(self, *arguments, **extra):
        with _closed_pipe_told():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx):
        with _closed_pipe_told():
            return super().invoke(ctx)


@contextmanager
def _closed_pipe_told():
    try:
        yield
    except BrokenPipeError as error:
        raise SystemExit(141) from error


@click.group(cls=_Commands, context_settings=_SETTINGS)
@click.version_option(package_name="jaxaudit")
def cli():
    """Certified lower bounds on how much secure aggregation leaks."""


for command in (cli_bounds.bound, cli_bounds.assert_, cli_bounds.plan):
    cli.add_command(command)


@cli.command()
@click.argument("recipe", default="membership")
@SET
@click.option("--trials", type=int, help="Certifying trials.")
@click.option("--seed", type=int, help="Of every random number.")
@click.option(
    "--delta", "deltas", type=SEVERAL, multiple=True, help="Repeat for several; their bounds hold together."
)
@click.option("--confidence", type=float, help="That all bounds hold.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/RECIPE-DIGEST]")
@click.option(
    "--range",
    "part",
    metavar="FIRST:COUNT",
    help="Play only these of the certifying trials; `merge` adds the parts.",
)
@click.option(
    "--exact", is_flag=True, help="Compute both error rates instead of sampling them, where draws are independent."
)
@click.option(
    "--distributed", is_flag=True, help="Share the trials with the other processes of this job (SLURM, MPI, ...)."
)
@DATA_DIR
def run(recipe, overrides, trials, seed, deltas, confidence, out, part, exact, distributed, data_dir):
    """Run an audit: RECIPE is a name that `list` shows (`membership` by default) or a TOML file.

    Asking again for a finished run prints what is stored, for an interrupted one goes on.
    """
    from . import cache, config, devices

    options = {
        "trials": trials,
        "seed": seed,
        "deltas": list(dict.fromkeys(deltas)) or None,
        "confidence": confidence,
    }
    wanted = wanted_recipe(recipe, overrides, data_dir, **options)
    part = _range(part, wanted.trials)
    if exact and (part or distributed):
        raise ValueError("--exact plays no trials to be shared; leave --range and --distributed out")
    hosts = devices.prepare(distributed)
    cache.keep_compilations()
    digest = config.digest(wanted)
    label = "-exact" if exact else "" if part is None else f"-{part.first}-{part.count}"
    folder = out or Path("runs") / f"{Path(recipe).stem}-{digest}{label}"

    from . import checkpoint, exact_mode, report, runner, store, tables
    from .progress import bars

    stored = _finished(wanted, part, exact, digest, folder)
    hosts.agree(str(stored is None), f"do not all find a finished run in {folder}; give --out a folder they share")
    if stored is None:
        store.check_free(folder)
        kept = folder.with_name(f"{folder.name}.partial")
        # The bars are gone before what is said of an interruption, or they would take it with them.
        with _resumable(kept), bars(hosts.first) as progress:
            if exact:
                result = exact_mode.run_exact(wanted, progress=progress)
            else:
                result = runner.run_recipe(wanted, part=part, keep=kept, hosts=hosts, progress=progress)
        if hosts.first:
            with _resumable(kept), Console(stderr=True).status("Drawing the figures"):
                stored = report.save(result, folder)
        if not exact:
            checkpoint.discard(kept)
    if hosts.first:
        tables.show(stored, page())
        _where(folder)


def _range(text: str | None, trials: int):
    from .types import Range

    if text is None:
        return None
    first, colon, count = text.partition(":")
    if not (colon and first.isdecimal() and count.isdecimal() and 1 <= int(count) <= trials - int(first)):
        raise ValueError(
            f"--range is {text!r}, allowed is FIRST:COUNT within the {trials:,} planned trials, such as "
            f"0:{trials // 2}; --trials plans how many there are in all"
        )
    return Range(int(first), int(count))


@contextmanager
def _resumable(kept: Path):
    """Keep what is done of a run that is interrupted or told to end, and say how it goes on."""
    import signal

    usual = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        if not kept.is_dir():
            raise
        click.echo(f"jaxaudit: interrupted; what is done is kept in {kept}, the same command goes on", err=True)
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, usual)


def _finished(wanted, part, exact: bool, digest: str, folder: Path):
    """The run in `folder`, if it is the one that is wanted; None if there is none."""
    from . import config, store

    if not (folder / "summary.json").is_file():
        return None
    found = store.read(folder)
    if found.summary["digest"] != digest:
        raise ValueError(f"{folder} holds another run; choose another --out")
    for name, recorded in found.summary["provenance"]["data_sha256"].items():
        if _sha256_now(name) not in (None, recorded):
            raise ValueError(f"{folder} was run on other data than the {name} found now; choose another --out")
    if found.exact != exact:
        raise ValueError(f"{folder} holds {'an exact' if found.exact else 'a sampled'} run; choose another --out")
    if found.part != (part or (0, found.summary["trials"])):
        raise ValueError(f"{folder} holds trials of another --range; choose another --out")
    asked, has = config.to_mapping(wanted), found.summary["recipe"]
    for name in ("deltas", "trials") if exact else config.PLAN:
        if asked[name] != has[name]:
            raise ValueError(
                f"{folder} holds this audit with {name} = {has[name]}, asked is {asked[name]}; going on after a look "
                f"voids the confidence: take fresh trials with --seed, or `jaxaudit bound {folder}` for other "
                "deltas of the same trials"
            )
    return found


def _sha256_now(name):
    """Digest of a data set as it is found now; None if there is none, which takes nothing from a stored run."""
    from . import datasets

    try:
        return datasets.load(name).sha256
    except ValueError:
        return None


@cli.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Run folder to be written.")
def merge(folders, out):
    """Add the parts of a run that `run --range` wrote: all its trials, each once."""
    from . import merge as parts
    from . import report, store, tables

    store.check_free(out)
    merged = report.write(parts.merge(folders), out)
    tables.show(merged, page())
    _where(out)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@CELL
def report(folder, cell):
    """Print a stored run again and redraw its figures."""
    from . import plots, store, tables

    stored = store.read(folder)
    if stored.whole:
        plots.draw(stored, folder, cell)
    tables.show(stored, page(), cell)
    _where(folder)


@cli.command(name="list")
@click.argument("kind", required=False)
def list_(kind):
    """Name the recipes and the parts they are made of, or the fields of one KIND of part."""
    from . import config, datasets

    console = page()
    if kind:
        table = Table(box=None, pad_edge=False)
        for name in ("field", "default", "allowed", "about"):
            table.add_column(name, no_wrap=name == "field")
        for row in config.describe(kind):
            table.add_row(*map(Text, row))
        console.print(table)
        return
    console.print("[bold]Recipes[/]       " + ", ".join(config.built_in()))
    known = {part: config.kinds(part) for part in config.PARTS}
    width = max(len(kind) for kinds in known.values() for kind in kinds)
    for part, kinds in known.items():
        console.print(f"[bold]{part.capitalize()}s[/]")
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(min_width=width + 2, no_wrap=True)
        for kind, cls in kinds.items():
            table.add_row(Text(f"  {kind}"), Text((cls.__doc__ or "").strip().splitlines()[0]))
        console.print(table)
    console.print("[bold]Datasets[/]      " + ", ".join(datasets.names()))


@cli.command()
@click.argument("name")
@DATA_DIR
def data(name, data_dir):
    """Make a data set ready: from its official files in the data folder, or by downloading them.

    NAME is one that `list` shows. Audits read the official files directly, too.
    """
    from . import datasets

    if name not in datasets.names():
        raise ValueError(f"dataset is {name!r}, allowed are {', '.join(datasets.names())}")
    click.echo(f"{name} is ready in {datasets.fetch(name, data_dir)}")


@cli.command()
def doctor():
    """Check that this machine computes what the guarantees rest on."""
    from .doctor import examine

    console, healthy = page(), True
    for what, found, good in examine():
        healthy &= good
        console.print(f"{'[green]ok[/]  ' if good else '[red]BAD[/] '} {what:<44} {found}", highlight=False)
    raise SystemExit(0 if healthy else 1)


def _where(folder: Path) -> None:
    names = ", ".join(sorted(path.name for path in folder.glob("*.png")))
    click.echo(f"\nFigures: {names} (and .pdf) in {folder}" if names else f"\nCounts in {folder}")
