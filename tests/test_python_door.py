"""The Python interface `v2a_ray`: a fast import, no side effects on notebooks, the same results as the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import v2a_ray as v2a
from v2a_ray.errors import ConfigError, DomainError

NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"
PART = {"domain": "hopper/stock", "behavior": "medium", "num_transitions": 300}
SETTINGS: dict[str, Any] = {"name": "door", "target": PART, "sources": [PART], "method": "dvdf", "seed": 3}


def in_a_new_process(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_is_fast_and_loads_no_heavy_package() -> None:
    seconds, *modules = in_a_new_process(
        "import sys, time; start = time.process_time(); import v2a_ray; spent = time.process_time() - start\n"
        "print(spent, *{name.split('.')[0] for name in sys.modules})"
    )
    assert float(seconds) < 0.5 and not {"torch", "ray", "matplotlib", "numpy", "pandas"} & set(modules)


def test_imports_keep_the_matplotlib_backend() -> None:
    program = (
        "import importlib, pkgutil, matplotlib\nmatplotlib.use('svg')\nimport v2a_ray.report\n"
        "for module in pkgutil.iter_modules(v2a_ray.report.__path__, 'v2a_ray.report.'):\n"
        "    importlib.import_module(module.name)\n"
        "print(matplotlib.get_backend())"
    )
    assert in_a_new_process(program) == ["svg"]


def test_public_names_exist() -> None:
    assert set(v2a.__all__) <= set(dir(v2a)) and all(callable(getattr(v2a, name)) for name in v2a.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        v2a.nothing  # noqa: B018
    assert v2a.methods()["dvdf"]


def test_experiment_takes_overrides_like_the_command_line() -> None:
    config = v2a.experiment(SETTINGS, seed=4, **{"policy.width": 8, "sources.0.num_transitions": 20})
    assert (config.method, config.seed, config.policy.width) == ("dvdf", 4, 8)
    assert config.sources[0].num_transitions == 20 and config.upstream_seed == 4
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        v2a.experiment(SETTINGS, **{"policy.widht": 8})
    with pytest.raises(DomainError):
        v2a.experiment(SETTINGS | {"target": PART | {"domain": "hopper/nowhere"}})


def test_loaded_behaviour_acts_on_one_observation_and_on_a_batch() -> None:
    policy = v2a.load_policy("hopper/stock:medium")
    env = v2a.make_env(policy.domain)
    observation, _ = env.reset(seed=0)
    one, many = policy.act(observation), policy.act(np.stack([observation] * 3))
    assert one.shape == (3,) and many.shape == (3, 3) and np.allclose(many, one)
    assert env.action_space.contains(one)


def test_notebook_runs_and_its_outputs_are_committed(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for cell in cells:
        assert cell["outputs"], "".join(cell["source"])
        exec("".join(cell["source"]), names)  # our own notebook
    assert names["results"]["method"].tolist() == ["iql_target", "iql_mixed"]
    assert names["results"]["score"].notna().all() and names["total"] > 0
