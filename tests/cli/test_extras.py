"""What an extra installs and is missing: one message that names the extra, before anything is computed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.command import CONFIG, v2a_here
from v2a_ray import imports

SEARCH = {"num_trials": 2, "space": {"policy.learning_rate": {"log_uniform": [1e-4, 1e-3]}}}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no extra had been installed."""

    def found(name: str) -> object:
        return None if name in ("ot", "sklearn", "optuna", "lz4") else importlib.util.find_spec(name)

    monkeypatch.setattr(imports, "find_spec", found)


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (("run", "tiny.yaml", "method=otdf"), "ot", "transport"),
        (("run", "tiny.yaml", "method=dmc_nearest"), "sklearn", "diagnosis"),
        (("run", "tiny.yaml", "method=grouped"), "sklearn", "diagnosis"),
        (("run", "tiny.yaml", "method=rllib_bc"), "lz4", "rllib"),
        (("sweep", "search.yaml", "--dry-run"), "optuna", "search"),
        (("sweep", "methods.yaml", "--dry-run"), "ot", "transport"),
        (("behaviors", "train", "hopper/stock"), "lz4", "rllib"),
        (("diagnose", "."), "sklearn", "diagnosis"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    arguments: tuple[str, ...], package: str, extra: str, bare: None, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "search.yaml").write_text(yaml.safe_dump({"name": "s", "base": "tiny.yaml", "search": SEARCH}))
    methods = {"name": "m", "base": "tiny.yaml", "axes": {"method": ["iql_target", "otdf"]}}
    (tmp_path / "methods.yaml").write_text(yaml.safe_dump(methods))
    done = v2a_here(*arguments, cwd=tmp_path)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2 and f"needs the package {package}, which is not installed" in said, done.stderr
    assert f"pip install 'v2a_ray[{extra}]'" in said and not (tmp_path / "runs").exists()


def test_methods_that_need_no_extra_run_without(bare: None, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    methods = ["iql_target", "v2a", "v2a_supported", "dara", "stc"]
    sweep = {"name": "m", "base": "tiny.yaml", "axes": {"method": methods}}
    (tmp_path / "methods.yaml").write_text(yaml.safe_dump(sweep))
    assert v2a_here("sweep", "methods.yaml", "--dry-run", cwd=tmp_path).returncode == 0


OF_EXTRAS = (
    "ot",
    "sklearn",
    "optuna",
    "lz4",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "imageio_ffmpeg",
    "mlflow",
    "wandb",
    "s3fs",
    "gcsfs",
    "minari",
    "msgpack_numpy",
    "gymnasium_robotics",
)
EVERY_COMMAND = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None
import v2a_ray.api, v2a_ray.export.choice, v2a_ray.export.selection, v2a_ray.report.page
import v2a_ray.orchestration.sweep.run_sweep, v2a_ray.orchestration.train.run
from v2a_ray.cli.main import commands
commands()
"""


def test_what_runs_and_compares_methods_imports_no_extra() -> None:
    """In a process where the packages of all extras cannot be imported, as in an environment of the bare wheel."""
    script = EVERY_COMMAND.format(blocked=OF_EXTRAS)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
