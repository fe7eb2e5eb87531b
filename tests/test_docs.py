"""Docs name what exists: every dotted name, every path, every setting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import v2a_ray
from v2a_ray.experiments.experiment import method_config
from v2a_ray.experiments.methods import METHODS
from v2a_ray.settings.choices import choices_of

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")),
        *(page for folder in ("docs", "cluster") for page in (ROOT / folder).rglob("*.md")),
    ]
)
PLACES = (ROOT, ROOT / "v2a_ray", ROOT / "benchmarks")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def exists(name: str) -> bool:
    """Whether a dotted name of the package is a module or a name in a module."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            fields = getattr(found, "model_fields", {})
            if part in fields:
                return True
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@every_page
def test_dotted_names_exist(page: Path) -> None:
    names = set(re.findall(r"\bv2a_ray(?:\.\w+)+", page.read_text())) - {"v2a_ray.egg"}
    groups = {name for name in names if re.fullmatch(r"v2a_ray\.(methods|[a-z]+s)", name)}
    assert [name for name in sorted(names - groups) if not exists(name)] == []


@every_page
def test_paths_exist(page: Path) -> None:
    paths = set(re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|yaml|md|json|sh))`", page.read_text()))
    users = {path for path in paths if path.split("/")[0] in ("runs", "RUN_DIR", "DIR", "my_package", "meta")}
    missing = [path for path in sorted(paths - users) if not any((place / path).exists() for place in PLACES)]
    assert missing == []


@every_page
def test_settings_exist(page: Path) -> None:
    """Dotted keys such as `policy.filter.rule` in code spans are settings of some kind of their section."""
    config = type(method_config("v2a"))
    sections = "|".join(name for name in config.model_fields if name not in ("name", "method", "seed", "store"))
    keys = set(re.findall(rf"[`\s]((?:{sections})(?:\.[a-z_]+)+)(?==|`)", page.read_text()))

    def known(key: str) -> bool:
        models: list[Any] = [config]
        for part in key.split("."):
            fields = [model.model_fields[part] for model in models if part in getattr(model, "model_fields", {})]
            if not fields:
                return False
            choices = choices_of(fields[0])
            models = [choices[kind] for kind in choices] if choices else [fields[0].annotation]
        return True

    assert [key for key in sorted(keys) if not known(key)] == []


@every_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == [] and (links or page not in (ROOT / "README.md", ROOT / "docs" / "index.md"))


def misread_lines(text: str) -> Iterator[str]:
    """Lines that Markdown takes for something else than they are.

    A number at the start of a line of a paragraph begins a list, if the line is a list item's: "more than / 15. Then".
    An indented command after a list is a paragraph of its last item, not code.
    """
    number, is_list, is_fenced, before = 0, False, False, ""
    for line in text.splitlines():
        is_fenced ^= line.lstrip().startswith("```")
        if is_fenced:
            continue
        item = re.match(r" *(?:[-*]|(\d+)[.)]) ", line)
        if item and item[1] and before.strip() and int(item[1]) != number + 1:
            yield line
        if is_list and not before.strip() and re.match(r" {4}(v2a|python|pip|make|nohup|ray) ", line):
            yield line
        if item:
            number, is_list = int(item[1] or 0), True
        elif line.strip() and not line.startswith(" ") and not before.strip():
            number, is_list = 0, False
        before = line


@every_page
def test_markdown_reads_lines_as_they_are_meant(page: Path) -> None:
    assert list(misread_lines(page.read_text())) == []


def test_misread_lines_are_found() -> None:
    fine = "- one\n  more\n- two\n\nText:\n\n    python -m x\n\n1. one\n   more\n2. two\n"
    assert list(misread_lines(fine)) == []
    assert list(misread_lines("- more than\n  15. Then\n")) == ["  15. Then"]
    assert list(misread_lines("- one\n  more\n\n    python -m x\n")) == ["    python -m x"]


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_docs_checks_detect_missing_names() -> None:
    assert exists("v2a_ray.engine.plan.make_plan") and not exists("v2a_ray.engine.plan.no_such_function")
    assert not exists("v2a_ray.no_such_module.name")


def test_every_method_has_a_page() -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "methods").glob("*.md"))
    assert sorted(re.findall(r"^<!-- method: (\w+) -->$", pages, re.MULTILINE)) == sorted(METHODS)


def test_one_version_everywhere() -> None:
    """Images, the citation and the changelog's newest section have the package's version."""
    tags = [
        tag
        for page in (ROOT / "cluster").rglob("*")
        if page.is_file() and page.suffix in (".md", ".yaml", "")
        for tag in re.findall(r"v2a-ray:(\d+\.\d+\.\d+)", page.read_text())
    ]
    assert len(tags) >= 10 and set(tags) == {v2a_ray.__version__}
    assert f"\nversion: {v2a_ray.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest[1].rstrip(",") in (v2a_ray.__version__, "Unreleased")
