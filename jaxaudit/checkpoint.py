"""What a long run keeps on the way: the counts so far, so that a killed run goes on where it was.

A block is a function of recipe, seed and range, so counts of the first trials and counts of the rest are all there is
to know; a run that was interrupted ends with the same counts, bit for bit.
"""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .player import Keep
from .random import STREAMS
from .types import Range

_EVERY_S = 5.0


def discard(folder: Path) -> None:
    """Remove what was kept of a run that is finished, and nothing else."""
    with suppress(OSError):
        for path in folder.iterdir():
            # Those of a write that was killed begin with a dot.
            if path.name.removeprefix(".").startswith(tuple(f"{stream}-" for stream in STREAMS)):
                path.unlink()
        folder.rmdir()


@dataclass(frozen=True)
class Checkpoint:
    """The counts so far of one run.

    Attributes:
      folder: where they are kept; None keeps nothing.
      run: names everything that decides the counts; files of another run are refused.
    """

    folder: Path | None
    run: str

    @contextmanager
    def of(self, stream: str, trials: Range) -> Iterator[tuple[tuple[int, np.ndarray] | None, Keep]]:
        """What was done before of a range, and a function to keep what is done: every few seconds, and on exit.

        Raises:
          ValueError: where the file is not whole, or belongs to another run.
        """
        if self.folder is None:
            yield None, lambda done, gaps: None
            return
        path = self.folder / f"{stream}-{trials.first}-{trials.count}.json"
        latest, written = [], [time.monotonic()]

        def keep(done, gaps):
            latest[:] = [(done, gaps)]
            if time.monotonic() - written[0] > _EVERY_S:
                written[0] = time.monotonic()
                self._write(path, stream, trials, *latest.pop())

        try:
            yield self._read(path, stream, trials), keep
        finally:
            if latest:
                self._write(path, stream, trials, *latest.pop())

    def _write(self, path, stream, trials, done, gaps):
        content = {"run": self.run, "stream": stream, "range": list(trials), "done": int(done)}
        content |= {"shape": list(gaps.shape), "gaps": gaps.ravel().tolist()}
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content | {"sha256": _sha256(content)}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _read(self, path, stream, trials):
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            whole = content.pop("sha256") == _sha256(content)
        except (ValueError, KeyError, TypeError, AttributeError):
            whole = False
        whole = whole and [content["stream"], content["range"]] == [stream, list(trials)]
        if not whole or not 0 <= content["done"] <= trials.count:
            raise ValueError(f"{path} is not whole; delete {path.parent} to begin again")
        if content["run"] != self.run:
            raise ValueError(
                f"{path} was kept by another run: another recipe, plan, machine or version; finish that one, or "
                f"delete {path.parent} to begin again"
            )
        return content["done"], np.array(content["gaps"], np.int64).reshape(content["shape"])


def _sha256(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
