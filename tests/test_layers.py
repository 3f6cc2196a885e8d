"""The floors of the house: a module imports only from floors below its own, and no files import in a circle.

Every import counts: at the top of a file, inside a function, and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mlekit"
#: From the ground up; rooms on one floor do not know each other.
FLOORS = (
    ("core",),
    ("solvers", "data"),
    ("models",),
    ("likelihood",),
    ("engine",),
    ("inference",),
    ("results",),
    ("api", "plot"),
    ("jobs", "distributed"),
    ("demo",),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FACE = {"__init__", "version"}  # hands public names on; anybody may import the version


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports(module: str) -> Iterator[tuple[str, int]]:
    path = MODULES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            names = [f"{whole}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            found = name if name in MODULES else name.rpartition(".")[0]
            if found in MODULES and found != module:
                yield found, node.lineno


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    own = room_of(module)
    if own in FACE:
        return
    for target, line in imports(module):
        other = room_of(target)
        if other not in FACE | {own}:
            assert FLOOR[other] < FLOOR[own], f"{MODULES[module]}:{line} imports {target}, which is not below"


def test_no_circles() -> None:
    graph = {
        module: {target for target, _ in imports(module) if MODULES[target].name != "__init__.py"}
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these files import each other in a circle: {' -> '.join(error.args[1])}")
