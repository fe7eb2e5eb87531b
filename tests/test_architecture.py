"""The shape of the code: imports point one way, Ray stays in one folder, files stay short, nothing unpickles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import v2a_ray

PACKAGE = Path(v2a_ray.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    {"cli"},
    {"orchestration"},
    # Methods may import evaluation (a policy is evaluated while it trains), never the other way round.
    {"report", "diagnosis", "export"},
    {"methods"},
    {"evaluation"},
    {"stages"},
    # Data needs environments to collect from, and a domain's fidelity check needs recorded data.
    {"data", "domains", "networks"},
    {"settings"},
    {"config"},
    {"outputs"},
    {"checksums", "errors", "files", "interrupts", "processor"},
]
"""From the top down. A module imports from its own part, its own layer and the layers below."""
LEVEL = {part: level for level, layer in enumerate(LAYERS) for part in layer}


def part_of(file: Path) -> str:
    """Folder or module of the package that a file belongs to; "" for the package itself."""
    name = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything a file imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def forbidden(file: Path, tree: ast.AST) -> list[str]:
    """What a file imports against the direction of the layers."""
    mine = part_of(file)
    parts = {name.split(".")[1] for name in imported_modules(tree) if name.startswith("v2a_ray.")}
    known = {part for part in parts if part in LEVEL}
    return sorted(part for part in known if mine and LEVEL[part] < LEVEL[mine])


def attribute_names(tree: ast.AST) -> set[str]:
    """Dotted names that are used, for example `yaml.safe_load`."""
    return {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


every_file = pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES])


def test_every_part_has_a_layer() -> None:
    assert {part_of(file) for file in FILES} - {""} <= LEVEL.keys()
    assert len(FILES) > 50


@every_file
def test_imports_point_one_way(file: Path) -> None:
    assert forbidden(file, ast.parse(file.read_text())) == []


@every_file
def test_ray_is_imported_in_orchestration_only(file: Path) -> None:
    roots = {name.split(".")[0] for name in imported_modules(ast.parse(file.read_text()))}
    assert part_of(file) == "orchestration" or "ray" not in roots


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
        ("stages/x.py", "from v2a_ray.engine.plan import Node", ["methods"]),
        ("data/x.py", "def f():\n    from v2a_ray import orchestration", ["orchestration"]),
        ("methods/x.py", "from v2a_ray.evaluation.returns import evaluate", []),
        ("config/base.py", "import v2a_ray.data.table.episodes", ["data"]),
        ("data/x.py", "from v2a_ray.domains import Domain\nimport v2a_ray.errors", []),
    ],
)
def test_the_check_itself(part: str, source: str, found: list[str]) -> None:
    assert forbidden(PACKAGE / part, ast.parse(source)) == found
