"""No command removes or changes a file that it did not make."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.builders_for_outputs import hdf5_file, table_folder
from tests.cli.command import v2a_here
from v2a_ray.errors import StorageError
from v2a_ray.files import sole_writer
from v2a_ray.outputs import INVENTORY, file_name, require_name, taking_the_place_of

CONVERT = ["data", "convert", "IN/good.hdf5", "--domain", "hopper/stock", "-o"]
COMMANDS: dict[str, list[str]] = {
    "convert": CONVERT,
    "export minari": ["data", "export", "IN/good.hdf5", "--format", "minari", "-o"],
    "export rllib": ["data", "export", "IN/good.hdf5", "--format", "rllib", "-o"],
    "export rllib-columns": ["data", "export", "IN/good.hdf5", "--format", "rllib-columns", "-o"],
    "export parquet": ["data", "export", "IN/good.hdf5", "--format", "parquet", "-o"],
    "export d4rl": ["data", "export", "IN/table", "--format", "d4rl", "-o"],
    "export npz": ["data", "export", "IN/table", "--format", "npz", "-o"],
    "inspect png": ["data", "inspect", "IN/good.hdf5", "-o"],
    "inspect report": ["data", "inspect", "IN/good.hdf5", "--report"],
    "behaviors list": ["behaviors", "list", "-o"],
    "render": ["domains", "render", "hopper/gravity-0.9", "-o"],
}
"""Every command that writes to a given path and needs no Ray, without the path."""
FOLDERS = ("convert", "export minari", "export rllib", "export rllib-columns", "export parquet")


def snapshot(folder: Path) -> dict[str, tuple[str, bytes | str]]:
    """Every path below a folder: its kind, and its bytes or the target of a link."""
    found: dict[str, tuple[str, bytes | str]] = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root) / name
            inside = path.relative_to(folder).as_posix()
            if path.is_symlink():
                found[inside] = ("link", str(path.readlink()))
            elif path.is_dir():
                found[inside] = ("folder", "")
            else:
                found[inside] = ("file", path.read_bytes())
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    hdf5_file(folder / "good.hdf5")
    table_folder(folder / "table")
    return folder


@pytest.fixture
def place(tmp_path: Path, inputs: Path) -> Path:
    """A working folder with a user's files."""
    (tmp_path / "IN").symlink_to(inputs)
    work = tmp_path / "work"
    (work / "precious" / "deep").mkdir(parents=True)
    (work / "precious" / "thesis.txt").write_text("years of work")
    (work / "precious" / "deep" / "data.bin").write_bytes(bytes(range(256)))
    (work / "precious" / "part-00000.parquet").write_bytes(b"not ours")
    (work / "notes.txt").write_text("notes")
    (work / "empty").mkdir()
    (work / "link").symlink_to(work / "precious")
    (work / "dangling").symlink_to(work / "nowhere")
    (work / "picture.png").write_bytes(b"\x89PNG somebody's")
    (work / "IN").symlink_to(inputs)
    return work


OUTPUTS = ["precious", "notes.txt", "link", "dangling", ".", "..", "", "precious/..", "picture.png", "precious/deep"]


@pytest.mark.parametrize("command", COMMANDS)
def test_files_of_the_user_are_kept(command: str, place: Path) -> None:
    before = snapshot(place.parent)
    for output in OUTPUTS:
        result = v2a_here(*COMMANDS[command], output, cwd=place)
        assert result.returncode == 2, (output, result.stdout)
        assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr, output
        assert snapshot(place.parent) == before, output


@pytest.mark.parametrize("command", FOLDERS)
def test_an_output_folder_is_replaced_until_a_file_is_added(command: str, place: Path) -> None:
    for output in ("empty", "new"):
        assert v2a_here(*COMMANDS[command], output, cwd=place).returncode == 0
        assert v2a_here(*COMMANDS[command], output, cwd=place).returncode == 0
        part = next(path for path in (place / output).rglob("*") if path.is_file() and path.suffix != ".json")
        content = part.read_bytes()
        part.write_bytes(b"edited by the user")
        result = v2a_here(*COMMANDS[command], output, cwd=place)
        assert result.returncode == 2 and "changed since" in " ".join(result.stderr.split())
        assert part.read_bytes() == b"edited by the user"
        part.write_bytes(content)
        (place / output / "mine.txt").write_text("added later")
        before = snapshot(place)
        result = v2a_here(*COMMANDS[command], output, cwd=place)
        assert result.returncode == 2 and "mine.txt" in result.stderr
        assert snapshot(place) == before


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("export d4rl", "a.hdf5"),
        ("export npz", "a.npz"),
        ("inspect png", "a.png"),
        ("inspect png", "a.html"),
        ("inspect report", "a.json"),
        ("inspect report", "a.md"),
        ("behaviors list", "a.md"),
        ("render", "a.png"),
        ("render", "a.svg"),
    ],
)
def test_an_output_file_is_replaced(command: str, name: str, place: Path) -> None:
    for _ in range(2):
        result = v2a_here(*COMMANDS[command], name, cwd=place)
        assert result.returncode == 0, result.stderr
    (place / name).write_bytes(b"mine now")
    result = v2a_here(*COMMANDS[command], name, cwd=place)
    assert result.returncode == 2 and "did not write it" in result.stderr
    assert (place / name).read_bytes() == b"mine now"


def test_an_output_over_an_input_is_refused(place: Path) -> None:
    assert v2a_here(*CONVERT, "table", cwd=place).returncode == 0
    before = snapshot(place)
    result = v2a_here("data", "export", "table", "--format", "parquet", "-o", "table", cwd=place)
    assert result.returncode == 2 and "would replace what is read" in result.stderr
    assert snapshot(place) == before


@pytest.mark.parametrize("command", ["run", "sweep"])
def test_results_in_a_users_folder_are_refused(command: str, place: Path) -> None:
    config = "name: test\ntarget: {domain: hopper/stock, behavior: medium, num_transitions: 100}\n"
    config += "sources: [{domain: hopper/gravity-0.5, behavior: medium, num_transitions: 100}]\n"
    if command == "sweep":
        config = "name: test\nsettings:\n  " + config.replace("\n", "\n  ").rstrip() + "\naxes: {seed: [0]}\n"
    (place / "config.yaml").write_text(config)
    before = snapshot(place)
    for folder in (".", "precious", "notes.txt", "link"):
        result = v2a_here(command, "config.yaml", "--run-dir", folder, cwd=place)
        assert result.returncode == 2 and "Traceback" not in result.stderr, folder
        assert snapshot(place) == before


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "", ".", "..", " ", "a\nb", "a\x1b[31m", "x" * 200, ".x"])
def test_a_name_cannot_leave_the_results_folder(name: str, place: Path) -> None:
    content = {"name": name}
    target = "{domain: hopper/stock, behavior: medium, num_transitions: 100}"
    (place / "c.yaml").write_text(f"name: {json_text(name)}\ntarget: {target}\nsources: [{target}]\n")
    before = snapshot(place.parent)
    result = v2a_here("run", "c.yaml", cwd=place)
    assert result.returncode == 2 and "name" in result.stderr, content
    assert snapshot(place.parent) == before


def json_text(text: str) -> str:
    import json

    return json.dumps(text)


@given(st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_text_is_one_name_inside_a_folder(text: str) -> None:
    name = file_name(text)
    assert name not in ("", ".", "..") and "/" not in name and "\0" not in name and len(name.encode()) < 256
    try:
        accepted = require_name(text)
    except ValueError:
        return
    assert accepted == text and not text.startswith(".") and "/" not in text


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "valuable").write_text("text")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "valuable")
    with pytest.raises(StorageError, match="is a symbolic link"), sole_writer(tmp_path / "run"):
        pass
    assert (tmp_path / "valuable").read_text() == "text"


def test_a_lock_that_is_a_pipe_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with sole_writer(tmp_path), pytest.raises(StorageError, match="another process"), sole_writer(tmp_path):
        pass


def test_long_names_with_equal_beginnings_stay_distinct() -> None:
    assert file_name("x" * 300 + "a") != file_name("x" * 300 + "b")


def test_a_lock_file_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("of another program")
    with sole_writer(tmp_path):
        assert (tmp_path / ".lock").read_text() == "of another program"


NAMES = st.sampled_from(["a.txt", "part-00000.parquet", "manifest.json", INVENTORY, "deep/b", ".hidden", "v2a.json"])


@given(st.dictionaries(NAMES, st.binary(max_size=8), min_size=1))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_folder_is_replaced_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, held: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("folder") / "output"
    for name, content in held.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    before = snapshot(folder.parent)
    with pytest.raises(StorageError), taking_the_place_of(folder) as partial:
        (partial / "new").write_text("new")
    assert snapshot(folder.parent) == before


def failing(partial: Path) -> None:
    (partial / "half").write_text("half")
    raise KeyboardInterrupt


def test_a_command_that_ends_early_leaves_the_old_folder(tmp_path: Path) -> None:
    write: Callable[[Path], object] = lambda partial: (partial / "file").write_text("old")  # noqa: E731
    with taking_the_place_of(tmp_path / "output") as partial:
        write(partial)
    before = snapshot(tmp_path)
    with pytest.raises(KeyboardInterrupt), taking_the_place_of(tmp_path / "output") as partial:
        failing(partial)
    assert snapshot(tmp_path) == before
    assert stat.S_ISDIR((tmp_path / "output").stat().st_mode)
