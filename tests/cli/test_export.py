"""`v2a export`: an export acts like the original policy, and replaces only earlier exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.cli.command import v2a, v2a_here
from tests.cli.finished_run import finished_run
from v2a_ray.errors import ConfigError, DataError, StorageError
from v2a_ray.export import formats
from v2a_ray.export.find import find_policy
from v2a_ray.export.policies import open_trained

OBSERVATIONS = np.random.default_rng(5).normal(scale=4.0, size=(257, 11)).astype(np.float32)


@pytest.mark.parametrize(("name", "file"), [("torch-export", "p.pt2"), ("onnx", "p.onnx")])
def test_an_exported_file_and_its_evaluation_equal_the_original(name: str, file: str, tmp_path: Path) -> None:
    actor = finished_run(tmp_path / "run")
    expected = actor.act(torch.from_numpy(OBSERVATIONS)).numpy()
    difference = formats.export_file(open_trained(tmp_path / "run"), name, tmp_path / file)
    assert 0.0 <= difference <= 1e-5
    loaded = formats.FORMATS[name].run((tmp_path / file).read_bytes())
    for act in (loaded, find_policy(str(tmp_path / file)).act):
        assert np.abs(act(OBSERVATIONS) - expected).max() <= 1e-5
        assert np.abs(act(OBSERVATIONS[:1]) - expected[:1]).max() <= 1e-5
    assert find_policy(str(tmp_path / file)).domain.name == "hopper/stock@d4rl"
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([file, "run", "store"])
    formats.export_file(open_trained(tmp_path / "run"), name, tmp_path / file)


def test_rllib_loads_its_checkpoint(tmp_path: Path) -> None:
    from ray.rllib.core.rl_module.rl_module import RLModule

    actor = finished_run(tmp_path / "run")
    done = v2a("export", "run", "-f", "rllib", "-o", "module", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1,000 observations: 0.0e+00" in done.stdout
    output = RLModule.from_checkpoint(tmp_path / "module").forward_inference({"obs": torch.from_numpy(OBSERVATIONS)})
    assert torch.equal(output["actions"], actor.act(torch.from_numpy(OBSERVATIONS)))
    # Evaluating the folder unpickles nothing: it works without the pickled files.
    for pickled in (tmp_path / "module").glob("*.pkl"):
        pickled.unlink()
    assert np.array_equal(find_policy(str(tmp_path / "module")).act(OBSERVATIONS), output["actions"].numpy())


def test_an_export_that_acts_differently_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(tmp_path / "run")

    def run(content: bytes) -> Any:
        return lambda observation: formats.run_program(content)(observation) + 2e-5

    monkeypatch.setitem(formats.FORMATS, "torch-export", formats.FileFormat(".pt2", formats.encode_program, run))
    with pytest.raises(StorageError, match="actions differ from the policy's by 2"):
        formats.export_file(open_trained(tmp_path / "run"), "torch-export", tmp_path / "p.pt2")
    assert not list(tmp_path.glob("*p.pt2*"))


def test_a_missing_package_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(tmp_path / "run")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript is not installed\n.*pip install 'v2a_ray\[export\]'"):
        formats.export_file(open_trained(tmp_path / "run"), "onnx", tmp_path / "p.onnx")
    assert not (tmp_path / "p.onnx").exists()


def test_folders_without_a_finished_run_are_refused(tmp_path: Path) -> None:
    finished_run(tmp_path / "run")
    cases = {"not a run": tmp_path, "not finished": tmp_path / "begun"}
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").write_text("name: x\n")
    for message, folder in cases.items():
        with pytest.raises(DataError, match=message):
            open_trained(folder)
    (tmp_path / "run/actor.safetensors").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="no actor of this platform"):
        open_trained(tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "run/result.json"], "exists and v2a_ray did not write it"),
        (["-f", "rllib", "-o", "run"], "holds what v2a_ray did not write"),
        (["-f", "torchscript"], "no format 'torchscript'"),
    ],
)
def test_wrong_arguments_change_nothing(arguments: list[str], message: str, tmp_path: Path) -> None:
    finished_run(tmp_path / "run")
    before = json.loads((tmp_path / "run/result.json").read_text())
    done = v2a_here("export", "run", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
    assert json.loads((tmp_path / "run/result.json").read_text()) == before
    assert sorted(each.name for each in (tmp_path / "run").iterdir()) == ["actor.safetensors", "result.json"]
