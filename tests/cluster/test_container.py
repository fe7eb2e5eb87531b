"""The container file, as far as it can be checked without building it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import v2a_ray

REPOSITORY = Path(__file__).parents[2]
CONTAINERFILE = REPOSITORY / "cluster" / "container" / "Containerfile"


def _instructions() -> list[tuple[str, str]]:
    """(keyword, arguments) of every instruction, comments left out and continued lines joined."""
    lines = [line for line in CONTAINERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0].upper(), line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def _arguments(keyword: str) -> list[str]:
    return [arguments for name, arguments in _instructions() if name == keyword]


def test_the_user_is_numeric_and_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", _arguments("USER")[-1])
    names = [name for name, _ in _instructions()]
    assert "RUN" not in names[len(names) - names[::-1].index("USER") :]


def test_the_user_is_the_manifests() -> None:
    user, group = _arguments("USER")[-1].split(":")
    for manifest in ("raycluster.yaml", "rayjob.yaml"):
        text = (REPOSITORY / "cluster" / "kuberay" / manifest).read_text()
        assert re.findall(r"runAsUser: (\d+)", text) == [user]
        assert re.findall(r"runAsGroup: (\d+)", text) == [group]


def test_base_images_have_a_version() -> None:
    defaults = dict(argument.split("=", 1) for argument in _arguments("ARG"))
    for base in _arguments("FROM"):
        image = re.sub(r"\$\{(\w+)\}", lambda found: defaults[found[1]], base.split()[0])
        assert re.fullmatch(r"[a-z]+:\d+\.\d+[\w.-]*", image), image


def test_nothing_is_added_from_elsewhere_and_no_secret_is_built_in() -> None:
    assert not _arguments("ADD")
    for value in _arguments("ARG") + _arguments("ENV"):
        assert not re.search(r"token|secret|password|key", value.split("=")[0], re.IGNORECASE)
    text = " ".join(_arguments("RUN"))
    assert "curl" not in text
    assert "sudo" not in text
    assert "--trusted-host" not in text


def test_the_cpu_build_of_torch_is_the_default_and_its_range_the_packages() -> None:
    assert "TORCH=cpu" in _arguments("ARG")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (torch,) = [requirement for requirement in project["dependencies"] if requirement.startswith("torch")]
    assert f'"{torch}"' in " ".join(_arguments("RUN"))


def test_the_images_tag_is_the_packages_version() -> None:
    texts = [path.read_text() for path in (REPOSITORY / "cluster").rglob("*") if path.is_file()]
    assert {tag for text in texts for tag in re.findall(r"v2a-ray:(\d[\d.]*\d)", text)} == {v2a_ray.__version__}


@pytest.mark.parametrize("source", ["pyproject.toml", "README.md", "v2a_ray", "tune_configs"])
def test_only_copied_files_are_sent_to_the_builder(source: str) -> None:
    ignored = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*", "everything is left out unless named"
    named = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        word.removeprefix("./") for copy in _arguments("COPY") if "--from" not in copy for word in copy.split()[:-1]
    }
    assert copied == named
    assert source in named
