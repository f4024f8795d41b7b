"""Imports point downwards, and the public door opens without executing anything."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxaudit

PACKAGE = Path(jaxaudit.__file__).parent
LAYERS = (
    {"random", "schema", "covariance", "cache", "bounds", "fixed_point", "figures", "layout"},
    {"types", "permutation", "accounting", "broadcast"},
    {"protocols"},
    {"models", "datasets"},
    {"populations", "aggregation"},
    {"attacks", "tally", "encoded"},
    {"game"},
    {"decisions"},
    {"audit", "parts"},
    {"config", "runs", "claimed"},
    {"store"},
    {"player", "scores", "recovery"},
    {"hosts", "checkpoint", "findings", "tuning", "verdicts"},
    {"population_row", "exact_mode", "devices"},
    {"runner"},
    {"recovery_tables"},
    {"recovery_plots"},
    {"plots", "tables"},
    {"report", "doctor", "forecast", "claim_tables"},
    {"merge", "progress", "console"},
    {"cli_bounds"},
    {"cli"},
    {"__main__"},
)
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of the package that a file imports, by relative or absolute name."""
    depth = len(path.relative_to(PACKAGE).parts)
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            rooms |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxaudit."):
            rooms.add(node.module.split(".")[1])
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_to_lower_rooms(path):
    here = room(path)
    upward = {name for name in imported_rooms(path) - {here} if LEVEL[name] >= LEVEL[here]}
    assert not upward


def test_every_room_has_a_level():
    assert {room(path) for path in FILES} == set(LEVEL)


def test_import_executes_nothing_and_bounds_need_no_jax():
    code = "import sys, jaxaudit, jaxaudit.bounds; print(*({'jax', 'flax', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_public_name_can_be_had():
    assert all(getattr(jaxaudit, name) is not None for name in jaxaudit.__all__)
    assert {"Audit", "run", "Federated", "GaussianLRT", "SecureSum", "bounds"} <= set(jaxaudit.__all__)
