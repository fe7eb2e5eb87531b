"""Rules for the code: the direction of imports, Ray in one folder only, short files, no unpickling."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

import pytest

import v2a_ray

PACKAGE = Path(v2a_ray.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    # The two interfaces: the command line and Python.
    ["cli", "api.py"],
    ["orchestration"],
    ["report", "diagnosis", "export"],
    # Experiments and sweeps, from files to trials and their plans.
    ["experiments"],
    # A policy is evaluated while it trains, so stages may import evaluation, but not the other way round.
    ["stages"],
    ["evaluation"],
    ["engine"],
    # The settings that all computing code reads: the sections of an experiment, and the experiment.
    [
        "experiments/experiment.py",
        "experiments/definition.py",
        "experiments/deviations.py",
        "experiments/methods.py",
        "experiments/plugins.py",
        "stages/registered.py",
        "stages/*/stage.py",
        "stages/*/stages.py",
        "stages/*/config.py",
        "engine/stage.py",
        "engine/keys.py",
        "engine/rates.py",
    ],
    ["data"],
    ["domains", "networks"],
    ["settings"],
    ["result_folders.py"],
    ["outputs.py"],
    ["mirror.py", "leases.py", "objects.py"],
    ["checksums.py", "errors.py", "files.py", "imports.py", "interrupts.py", "processor.py", "robot_interface.py"],
]
"""Layers from top to bottom: folders, and files in another layer than their folder. A module imports only from its own
layer and from layers below."""


def level_of(name: str) -> int | None:
    """The layer of a file (path relative to the package): the file's own, or else its folder's."""
    folder = name.split("/")[0]
    by_file = [level for level, layer in enumerate(LAYERS) if any(fnmatch(name, each) for each in layer)]
    by_folder = [level for level, layer in enumerate(LAYERS) if folder in layer]
    return next(iter([*by_file, *by_folder]), None)


def file_of(module: str) -> str | None:
    """The file of a dotted name, relative to the package; None if it is not a module of the package."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()]
    return found[0].relative_to(PACKAGE).as_posix() if found and module.startswith("v2a_ray.") else None


def name_of(file: Path) -> str:
    """A file's name relative to the package."""
    return file.relative_to(PACKAGE).as_posix()


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports of a file, including those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(tree: ast.AST, typing_too: bool = True) -> set[str]:
    """The files of the package that a file imports; `typing_too=False` skips imports for type checkers."""
    if not typing_too:
        tree = WithoutTyping().visit(copy.deepcopy(tree))
    return {name for module in imported_modules(tree) if (name := file_of(module)) and name != "__init__.py"}


class WithoutTyping(ast.NodeTransformer):
    """Removes `if TYPE_CHECKING:` blocks."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def forbidden(file: Path, tree: ast.AST) -> list[str]:
    """Imports of a file against the direction of the layers."""
    mine = level_of(name_of(file))
    assert mine is not None or name_of(file) == "__init__.py", file
    levels = {name: level_of(name) for name in imports(tree, typing_too=False)}
    return sorted(name for name, level in levels.items() if mine is not None and level is not None and level < mine)


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The files of an import cycle, or none."""
    done: set[str] = set()

    def search(name: str, above: list[str]) -> list[str]:
        if name in above:
            return above[above.index(name) :]
        if name not in done:
            for other in sorted(graph.get(name, ())):
                if found := search(other, [*above, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in graph if (found := search(name, []))), [])


def attribute_names(tree: ast.AST) -> set[str]:
    """Dotted names used in the code, for example `yaml.safe_load`."""
    return {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


every_file = pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES])


def test_every_module_has_a_layer() -> None:
    assert [name_of(file) for file in FILES if level_of(name_of(file)) is None] == ["__init__.py"]
    assert len(FILES) > 50


def test_there_are_no_import_cycles() -> None:
    # A function that runs in another process imports its own module.
    graph = {name_of(file): imports(ast.parse(file.read_text()), False) - {name_of(file)} for file in FILES}
    assert circle(graph) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


@every_file
def test_imports_point_one_way(file: Path) -> None:
    assert forbidden(file, ast.parse(file.read_text())) == []


@every_file
def test_ray_is_imported_in_orchestration_only(file: Path) -> None:
    roots = {name.split(".")[0] for name in imported_modules(ast.parse(file.read_text()))}
    assert name_of(file).startswith("orchestration/") or "ray" not in roots


@every_file
def test_nothing_unpickles(file: Path) -> None:
    tree = ast.parse(file.read_text())
    roots = {name.split(".")[0] for name in imported_modules(tree)}
    assert not roots & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    assert not attribute_names(tree) & {"torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
    assert "allow_pickle=True" not in ast.unparse(tree)


@every_file
def test_files_stay_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400


@pytest.mark.parametrize(
    ("part", "source", "found"),
    [
        ("stages/x.py", "from v2a_ray.experiments.sweep import Trial", ["experiments/sweep.py"]),
        ("data/x.py", "def f():\n    from v2a_ray import orchestration", ["orchestration/__init__.py"]),
        ("stages/x.py", "from v2a_ray.evaluation.returns import evaluate", []),
        ("settings/x.py", "import v2a_ray.data.table.episodes", ["data/table/episodes.py"]),
        ("data/x.py", "from v2a_ray.domains import Domain\nimport v2a_ray.errors", []),
        ("domains/x.py", "from v2a_ray.data.table.episodes import EpisodeTable", ["data/table/episodes.py"]),
        ("engine/x.py", "from v2a_ray.experiments.experiment import ExperimentConfig", []),
        ("stages/policy/config.py", "from v2a_ray.engine.context import Job", ["engine/context.py"]),
    ],
)
def test_import_check_detects_forbidden_imports(part: str, source: str, found: list[str]) -> None:
    assert forbidden(PACKAGE / part, ast.parse(source)) == found


def test_contributing_names_the_layers() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    folders = [name for layer in LAYERS for name in layer if "." not in name]
    told = re.search(r"`(cli → [^`]*)`", text)
    assert told and re.findall(r"\w+", told.group(1)) == folders
