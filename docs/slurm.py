"""An audit on a SLURM cluster: the certifying trials in shards, one job each, and their merge.

    pip install 'jaxaudit[slurm]'
    python docs/slurm.py membership --trials 1000000000 --shards 10 --out runs/night --partition gpu --gpus 1

Every job is `jaxaudit run --range` on its own trials, so a shard that is killed goes on where it was when the same
command is given again, and shards that are finished are not played twice. `--cluster local` runs the shards here.
"""

import subprocess
import sys
from pathlib import Path

import click
import submitit


def play(command: list[str]) -> None:
    """One shard; errors of the command line become those of the job."""
    subprocess.run([sys.executable, "-m", "jaxaudit", *command], check=True)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("recipe")
@click.option("--trials", type=int, required=True, help="Certifying trials, all shards together.")
@click.option("--shards", type=click.IntRange(1), default=10, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Run folder to be written.")
@click.option("--cluster", type=click.Choice(["slurm", "local", "debug"]), default="slurm", show_default=True)
@click.option("--partition", help="Of SLURM.")
@click.option("--gpus", type=int, default=0, show_default=True, help="For each shard.")
@click.option("--minutes", type=int, default=60, show_default=True, help="For each shard.")
@click.argument("more", nargs=-1, type=click.UNPROCESSED)
def main(recipe, trials, shards, out, cluster, partition, gpus, minutes, more):
    """Play RECIPE in shards and merge them into OUT; MORE options go to `jaxaudit run`."""
    edges = [trials * number // shards for number in range(shards + 1)]
    parts = [out.with_name(f"{out.name}-{first}") for first in edges[:-1]]
    commands = [
        ["run", recipe, *more, "--trials", str(trials), "--range", f"{first}:{last - first}", "--out", str(part)]
        for first, last, part in zip(edges, edges[1:], parts)
    ]
    executor = submitit.AutoExecutor(folder=out.with_name(f"{out.name}-log"), cluster=cluster)
    executor.update_parameters(timeout_min=minutes, gpus_per_node=gpus)
    if partition:
        executor.update_parameters(slurm_partition=partition)
    for job in executor.map_array(play, commands):
        job.result()
    subprocess.run([sys.executable, "-m", "jaxaudit", "merge", *map(str, parts), "--out", str(out)], check=True)


if __name__ == "__main__":
    main()
