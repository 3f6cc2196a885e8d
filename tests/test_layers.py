"""The house: modules import only from floors below their own and never in a circle, and no file grows long.

Every import counts: at the top of a file, inside a function, and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mlekit

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "mlekit"
#: From the ground up; rooms on one floor do not know each other.
FLOORS = (
    ("version",),
    ("core",),
    ("solvers", "data"),
    ("models",),
    ("likelihood",),
    ("native",),
    ("engine",),
    ("inference",),
    ("results",),
    ("api", "plot", "constraints", "families", "special"),  # the last three are public names of rooms below
    ("jobs", "distributed"),
    ("__init__",),  # the public names
    ("demo",),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MOST_FLAT_FILES = 6
MOST_LINES = 400
#: Longer, but for docstrings: what a user calls is described where it is written.
DOCSTRINGS_OF_USERS = {"api.py", "results/fit.py"}


def modules_of(package: Path) -> dict[str, Path]:
    """The files of a package by the names that they are imported by."""

    def name(path: Path) -> str:
        parts = path.relative_to(package.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    return {name(path): path for path in sorted(package.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports(module: str, modules: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """The modules of the package that a module imports, and in which lines."""
    path = modules[module]
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
            found = name if name in modules else name.rpartition(".")[0]
            if found in modules and found != module:
                yield found, node.lineno


def imports_from_above(package: Path) -> list[str]:
    """Every import of a module that does not lie on a floor below."""
    modules = modules_of(package)
    return [
        f"{modules[module]}:{line} imports {target}, which is not below"
        for module in modules
        for target, line in imports(module, modules)
        if room_of(target) != room_of(module) and FLOOR[room_of(target)] >= FLOOR[room_of(module)]
    ]


def circle(package: Path) -> list[str]:
    """Modules that import each other in a circle; rooms hand names on, so their own imports do not count."""
    modules = {name: path for name, path in modules_of(package).items() if path.name != "__init__.py"}
    every = modules_of(package)
    graph = {module: {target for target, _ in imports(module, every) if target in modules} for module in modules}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def more_than_names(package: Path) -> list[str]:
    """What the `__init__.py` of rooms hold beside a docstring, imports and `__all__`."""

    def may_stay(node: ast.stmt) -> bool:
        if isinstance(node, ast.Assign):
            return [ast.unparse(target) for target in node.targets] == ["__all__"]
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        return docstring or isinstance(node, (ast.Import, ast.ImportFrom))

    return [
        f"{path}:{node.lineno}"
        for path in package.rglob("*/__init__.py")
        for node in ast.parse(path.read_text()).body
        if not may_stay(node)
    ]


def lines_of(path: Path, docstrings: bool = True) -> int:
    text = path.read_text()
    found = len(text.splitlines())
    for node in () if docstrings else ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            found -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
    return found


def test_imports_point_down() -> None:
    assert imports_from_above(PACKAGE) == []


def test_every_room_has_a_floor() -> None:
    assert {room_of(module) for module in modules_of(PACKAGE)} == set(FLOOR)


def test_public_rooms_are_packages_that_hand_on_all_names() -> None:
    """So that type checkers find them, and `import mlekit.families` does."""
    for name, room in (("constraints", "models"), ("families", "models"), ("special", "core")):
        public, inner = (importlib.import_module(f"mlekit.{path}") for path in (name, f"{room}.{name}"))
        assert getattr(mlekit, name) is public
        assert public.__all__ == inner.__all__
        assert all(getattr(public, each) is getattr(inner, each) for each in inner.__all__)


def test_only_public_names_are_shown_and_others_bring_a_suggestion() -> None:
    assert dir(mlekit) == sorted(mlekit.__all__)
    with pytest.raises(AttributeError, match=r"module 'mlekit' has no attribute 'Nweton'; did you mean Newton\?$"):
        getattr(mlekit, "Nweton")  # noqa: B009
    with pytest.raises(AttributeError, match=r"has no attribute 'qqqq'$"):
        getattr(mlekit, "qqqq")  # noqa: B009
    assert not hasattr(mlekit, "qqqq")


def test_no_circles() -> None:
    assert circle(PACKAGE) == []


def test_rooms_hand_on_names_and_hold_nothing_else() -> None:
    assert more_than_names(PACKAGE) == []


def test_few_files_lie_outside_of_rooms() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_FLAT_FILES


def test_no_file_is_long() -> None:
    for path in [*PACKAGE.rglob("*.py"), *TESTS.rglob("*.py")]:
        described = path.is_relative_to(PACKAGE) and str(path.relative_to(PACKAGE)) in DOCSTRINGS_OF_USERS
        assert lines_of(path, docstrings=not described) <= MOST_LINES, path


HARMLESS = {
    "__init__.py": "from .core.trees import leaf",
    "version.py": "VERSION = '0'",
    "core/__init__.py": '"""Ground floor."""',
    "core/trees.py": "import os\nimport numpy.linalg\nfrom .. import version\nleaf = 1",
    "models/__init__.py": '"""Models."""\nfrom .model import Model\n__all__ = ["Model"]',
    "models/model.py": "from ..core.trees import leaf\nfrom ..core import trees\nfrom .rules import Rule",
    "models/rules.py": "import mlekit.core.trees",
}
#: What is planted where, and what is to be said of it.
PLANTED = {
    "at the top": ("core/trees.py", "from ..models.model import Model", "trees.py:5 imports mlekit.models.model,"),
    "a whole room": ("core/trees.py", "from .. import models", "trees.py:5 imports mlekit.models,"),
    "by its full name": ("core/trees.py", "import mlekit.models.rules", "trees.py:5 imports mlekit.models.rules,"),
    "in a function": (
        "core/trees.py",
        "def make():\n    from ..models import model",
        "trees.py:6 imports mlekit.models.model,",
    ),
    "for annotations": (
        "core/trees.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..models.model import Model",
        "trees.py:7 imports mlekit.models.model,",
    ),
    "a room beside": ("data/rows.py", "from ..solvers import newton", "rows.py:2 imports mlekit.solvers.newton,"),
    "all names": ("models/rules.py", "import mlekit as mle", "rules.py:2 imports mlekit,"),
    "by a room": ("core/__init__.py", "from ..models import Model", "__init__.py:2 imports mlekit.models,"),
}


def build(package: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


@pytest.mark.parametrize("where", PLANTED)
def test_an_import_from_above_is_found(where: str, tmp_path: Path) -> None:
    package = build(tmp_path / "mlekit", HARMLESS | {"solvers/newton.py": "", "data/rows.py": ""})
    assert imports_from_above(package) == []
    name, text, said = PLANTED[where]
    with (package / name).open("a") as file:
        file.write(f"\n{text}")
    assert [said in found for found in imports_from_above(package)] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "from .model import Model",
        "def f():\n    from . import model",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .model import Model",
    ],
    ids=["at the top", "in a function", "for annotations"],
)
def test_a_circle_is_found(text: str, tmp_path: Path) -> None:
    package = build(tmp_path / "mlekit", HARMLESS)
    assert circle(package) == []
    build(package, {"models/rules.py": text})
    assert set(circle(package)) == {"mlekit.models.model", "mlekit.models.rules"}
    assert imports_from_above(package) == []


@pytest.mark.parametrize("text", ["def f(): ...", "N = 1", "if True:\n    import os", "__all__ += ['x']"])
def test_what_a_room_holds_is_found(text: str, tmp_path: Path) -> None:
    package = build(tmp_path / "mlekit", HARMLESS | {"__init__.py": "N = 1"})
    assert more_than_names(package) == []
    build(package, {"models/__init__.py": f'"""Models."""\n{text}'})
    assert more_than_names(package) == [f"{package / 'models' / '__init__.py'}:2"]


def test_docstrings_are_told_from_code(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text('"""One\ntwo."""\n\n\ndef f():\n    """Three\n\n    four."""\n    return 1\n')
    assert (lines_of(path), lines_of(path, docstrings=False)) == (9, 4)
