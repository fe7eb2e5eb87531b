"""A job: one self-contained configuration file, the folder of its results, and the command that runs it.

A job cannot read files of the machine that submits it. So data, artifacts and results need absolute paths on storage
that every node mounts; data may also be a URI. A relative path would name another folder on the cluster.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from v2a_ray.errors import ConfigError, DataError
from v2a_ray.experiments.reading import Notify, load_experiment
from v2a_ray.experiments.sweep import make_sweep, with_base, with_grid
from v2a_ray.experiments.sweep_config import SweepConfig
from v2a_ray.objects import ObjectFolder, is_address
from v2a_ray.orchestration.cluster.job_variables import VARIABLES_FILE, write_variables
from v2a_ray.settings.shipped import config_path
from v2a_ray.settings.yaml_files import merge, parse_overrides, read_yaml, validate

CONFIG_FILE = "experiment.yaml"
SHARED = "an absolute path on storage that every node mounts"
NO_DATA = {"data_root": "/"}
"""For jobs that read no data. The default is the job's working folder, which changes with each job; a sweep that
continues compares its settings and would see a difference."""
A_URI = "a URI (s3://, gs://, ...)"


@dataclass(frozen=True)
class JobSpec:
    """A run or sweep that is ready to be submitted.

    Attributes:
        kind: the command that runs the job.
        name: of the experiment or sweep.
        content: of the configuration file, merged with its `base`.
        overrides: `key=value` of the command line, which override the file.
        run_dir: absolute folder of the results, on storage that all nodes mount.
        plugins: files on this machine, shipped beside the configuration file, which refers to them by file name.
        environment: variables of the job's command and workers. They travel in a file, because the cluster shows
            commands, metadata and runtime environments to everyone who may list jobs.
    """

    kind: Literal["run", "sweep"]
    name: str
    content: Mapping[str, Any]
    overrides: tuple[str, ...]
    run_dir: str
    plugins: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> str:
        """Equal for jobs that write to the same folder, which must not run at the same time."""
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", self.name).strip("-")
        return f"v2a-{name}-{hashlib.sha256(self.run_dir.encode()).hexdigest()[:8]}"

    @property
    def entrypoint(self) -> str:
        """The shell command. It continues where it stopped, so it may be run again at any time.

        Artifacts go where the file says, else to the cluster's own V2A_STORE, else beside the results.
        """
        arguments = [self.kind, CONFIG_FILE, *self.overrides, "--run-dir", self.run_dir]
        beside = shlex.quote(_beside(self.run_dir, "artifacts"))
        before = f". ./{VARIABLES_FILE}; " if self.environment else ""
        return f"{before}V2A_STORE=${{V2A_STORE:-{beside}}} python -m v2a_ray.cli.main {shlex.join(arguments)}"

    def write(self, folder: Path) -> None:
        """Write the configuration file and its plugins, which are shipped with the package."""
        (folder / CONFIG_FILE).write_text(yaml.safe_dump(dict(self.content), sort_keys=False))
        for plugin in self.plugins:
            (folder / Path(plugin).name).write_bytes(Path(plugin).read_bytes())
        if self.environment:
            write_variables(folder, self.environment)


def job_environment(given: Sequence[str]) -> dict[str, str]:
    """Variables from `KEY=VALUE`, or from `KEY` with this process's value. Raises ConfigError."""
    found = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ConfigError(
                f"{name!r} is no name of a variable", where="--env", remedy="--env KEY or --env KEY=VALUE"
            )
        if not separator and name not in os.environ:
            raise ConfigError(f"{name} is not set here", where="--env", remedy=f"export it, or --env {name}=VALUE")
        found[name] = value if separator else os.environ[name]
    return found


def make_job(
    path: Path, overrides: Sequence[str] = (), run_dir: str | None = None, notify: Notify = lambda text: None
) -> JobSpec:
    """The job of a run's or a sweep's file; a sweep has `axes` or a `search`.

    `notify` gets a line for each setting of the file that is ignored because the command line chooses another method.
    Raises ConfigError where `v2a run` and `v2a sweep` do, and for a folder that only this machine has.
    """
    path = config_path(path)
    content = read_yaml(path)
    if {"axes", "search"} & merge(content, parse_overrides(overrides)).keys():
        return _sweep_job(path, content, overrides, run_dir, notify)
    config = load_experiment(path, overrides, notify)
    content = NO_DATA | content
    store = _require_shared(merge(content, parse_overrides(overrides)), path)
    folder = _results(run_dir, store, config.folder_name)
    content, plugins = _shipped(content, config.plugins)
    return JobSpec("run", config.name, content, tuple(overrides), folder, plugins)


def _sweep_job(
    path: Path, content: dict[str, Any], overrides: Sequence[str], run_dir: str | None, notify: Notify
) -> JobSpec:
    # Overrides of the sweep's own keys go into the file, because `base` is read here; other overrides stay overrides.
    own = [text for text in overrides if text.partition("=")[0].split(".")[0] in SweepConfig.model_fields]
    others = tuple(text for text in overrides if text not in own)
    over = parse_overrides(own)
    content, notices = with_base(with_grid(content, over), path, NO_DATA)
    config = validate(SweepConfig, content, path, over=over)
    store = _require_shared(merge(content, parse_overrides(others)), path)
    # Trial names depend on the data. If only the cluster can read the data, the trials are made there.
    with suppress(DataError):
        notices = make_sweep(config, path, parse_overrides(others), notices).notices
    for text in notices:
        notify(text)
    settings, plugins = _shipped(content.get("settings", {}), content.get("settings", {}).get("plugins", []))
    content = {**content, "settings": settings}
    return JobSpec("sweep", config.name, content, others, _results(run_dir, store, config.name), plugins)


def _shipped(settings: Mapping[str, Any], plugins: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Settings that refer to plugins by file name, and the plugins' paths. Raises ConfigError for equal file names."""
    names = [Path(path).name for path in plugins]
    if repeated := next((name for name in names if names.count(name) > 1 or name == CONFIG_FILE), None):
        raise ConfigError(f"two files would be shipped as {repeated}", where="plugins", remedy="rename one")
    return (dict(settings) | {"plugins": names} if names else dict(settings)), tuple(plugins)


def _results(run_dir: str | None, store: str | None, name: str) -> str:
    """Folder of the results: `run_dir` if given, else beside the artifacts, as on one machine."""
    if run_dir is None:
        if store is None:
            raise ConfigError(
                "where results go on the cluster is not said",
                where="--run-dir",
                remedy=f"--run-dir /SHARED/runs/{name}, a folder on storage that every node mounts",
            )
        run_dir = _beside(store, name)
    _require_absolute("--run-dir", run_dir, "command line")
    return run_dir


def _beside(place: str, name: str) -> str:
    """The folder or address `name` with the same parent. A bucket has none, so there it lies inside."""
    scheme, separator, path = place.partition("://")
    if not separator:
        return str(PurePosixPath(place).parent / name)
    parent = PurePosixPath(path).parent
    return f"{scheme}://{path if str(parent) == '.' else parent}/{name}"


def _require_shared(content: Mapping[str, Any], path: Path) -> str | None:
    """The store, if one is named. Raises ConfigError for data or artifacts with paths relative to this machine."""
    store, roots, relative = None, [], []
    for key, value in _leaves(content):
        match key.rsplit(".", 1)[-1]:
            case "store" if value is not None:
                _require_absolute(key, str(value), str(path))
                store = str(value)
            case "data_root":
                if "://" not in str(value):
                    _require_absolute(key, str(value), str(path), f"{SHARED}, or {A_URI}")
                roots.append(str(value))
            case "path" if isinstance(value, str) and "://" not in value and not value.startswith("/"):
                relative.append((key, value))
    if relative and set(roots) <= set(NO_DATA.values()):
        key, value = relative[0]
        raise ConfigError(
            f"{value!r} is relative to a folder of this machine, and data are not uploaded",
            where=f"{path}: {key}",
            remedy=f"data_root=/SHARED/data: {SHARED}, or {A_URI}",
        )
    return store


def _require_absolute(key: str, value: str, where: str, remedy: str = SHARED) -> None:
    if not value.startswith("/") and not _is_object_storage(key, value):
        what = "is not a folder that nodes can mount" if "://" in value else "is relative to a folder of this machine"
        raise ConfigError(f"{value!r} {what}", where=f"{where}: {key}", remedy=remedy)


def _is_object_storage(key: str, value: str) -> bool:
    """Whether artifacts or results can go to this address; ConfigError if it is one where they cannot."""
    return key in ("store", "settings.store", "--run-dir") and is_address(value) and bool(ObjectFolder(value))


def _leaves(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf; items of a list have the key of the list."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list):
        for item in content:
            yield from _leaves(item, key)
    else:
        yield key, content
