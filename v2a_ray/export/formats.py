"""Single-file formats: PyTorch's exported program (.pt2) and ONNX (.onnx), both from raw observations to actions.

Reading never unpickles. `torch.export.load` may unpickle, so `v2a evaluate` reads the parameters stored next to the
program in the archive instead. An ONNX file is protobuf and runs directly.

Shape suffixes: B batch, O observation dimension, A action dimension.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor, nn

from v2a_ray.data.formats.claims import require_stored
from v2a_ray.domains import parse_domain
from v2a_ray.domains.rollout import Act
from v2a_ray.errors import ConfigError, DataError, StorageError, told
from v2a_ray.export.policies import Policy, TrainedPolicy, actor_of
from v2a_ray.files import parse_json, read_bytes, read_json
from v2a_ray.networks import TanhActor
from v2a_ray.outputs import ABOUT, new_file, require_ours

TOLERANCE = 1e-5
"""Largest accepted difference of an export's actions; otherwise it is not written."""
NUM_OBSERVATIONS = 1000
WANTED = "give a run directory, what `v2a export` wrote, or a behaviour, for example hopper/stock:expert"
_PARAMETERS = "actor.safetensors.base64"


class Deployed(nn.Module):
    """The exported graph of an actor: standardisation, network, tanh."""

    def __init__(self, actor: TanhActor) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, observation_BO: Tensor) -> Tensor:
        """Actions (B, A) for raw observations (B, O)."""
        standardized_BO = (observation_BO - self.actor.observation_mean_O) / self.actor.observation_std_O
        action_BA: Tensor = self.actor(standardized_BO)
        return action_BA


@dataclass(frozen=True)
class FileFormat:
    """Encodes a policy as the bytes of one file, and loads them to act.

    Attributes:
        suffix: suffix of the file.
        encode: encodes a policy.
        run: loads bytes that we just encoded, as a user of the format would.
    """

    suffix: str
    encode: Callable[[TrainedPolicy], bytes]
    run: Callable[[bytes], Act]


def export_file(policy: TrainedPolicy, name: str, output: Path) -> float:
    """Write the policy atomically in the format `name`; an earlier export is replaced.

    Returns the largest difference (absolute, in actions of [-1, 1]) to the original on 1,000 observations.

    Raises:
        ConfigError: unknown format, or a required package is missing.
        StorageError: `output` exists and is not an export, cannot be written, or the loaded export acts differently.
    """
    file_format = FORMATS[name]
    require_ours(output)
    content = file_format.encode(policy)
    with new_file(output) as partial:
        partial.write_bytes(content)
        return require_equal(policy.actor, file_format.run(partial.read_bytes()), output)


def require_equal(actor: TanhActor, act: Act, where: Path) -> float:
    """The largest difference on `trial_observations`; raises StorageError when it exceeds `TOLERANCE`."""
    observation_BO = trial_observations(actor)
    difference = float(np.abs(actor.act_numpy(observation_BO) - act(observation_BO)).max())
    if not difference <= TOLERANCE:
        raise StorageError(
            f"the export's actions differ from the policy's by {difference:.2g}, at most {TOLERANCE:g} is accepted",
            where=str(where),
            remedy="another format; nothing was written",
        )
    return difference


def trial_observations(actor: TanhActor) -> NDArray[np.float32]:
    """(1000, O): normal with the actor's mean and three times its standard deviation, to test beyond the data."""
    mean, std = actor.observation_mean_O.numpy(), actor.observation_std_O.numpy()
    noise = np.random.default_rng(0).standard_normal((NUM_OBSERVATIONS, len(mean)))
    return np.asarray(mean + 3.0 * std * noise, dtype=np.float32)


def encode_program(policy: TrainedPolicy) -> bytes:
    """`torch.export`: a program that PyTorch loads in Python, AOTInductor compiles and ExecuTorch lowers."""
    buffer = io.BytesIO()
    files = {ABOUT: json.dumps(policy.about), _PARAMETERS: base64.b64encode(save(policy.actor.state_dict())).decode()}
    with quiet():
        torch.export.save(_program(policy), buffer, extra_files=files)
    return buffer.getvalue()


def _program(policy: TrainedPolicy) -> torch.export.ExportedProgram:
    batch = torch.zeros(2, policy.actor.observation_mean_O.shape[0])
    shapes = {"observation_BO": {0: torch.export.Dim("batch")}}
    return torch.export.export(Deployed(policy.actor).eval(), (batch,), dynamic_shapes=shapes)


def run_program(content: bytes) -> Act:
    """The policy of a program, loaded by `torch.export.load`."""
    with quiet():
        module = torch.export.load(io.BytesIO(content)).module()

    @torch.no_grad()
    def act(observation_BO: NDArray[Any]) -> NDArray[np.float32]:
        action_BA: NDArray[np.float32] = module(torch.from_numpy(np.asarray(observation_BO, np.float32))).numpy()
        return action_BA

    return act


def encode_onnx(policy: TrainedPolicy) -> bytes:
    """ONNX with input `observation` (batch, O) and output `action` (batch, A)."""
    _package("onnxscript")
    onnx = _package("onnx")
    batch = torch.zeros(2, policy.actor.observation_mean_O.shape[0])
    with quiet():
        program = torch.onnx.export(
            Deployed(policy.actor).eval(),
            (batch,),
            input_names=["observation"],
            output_names=["action"],
            dynamic_shapes={"observation_BO": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {ABOUT: json.dumps(policy.about)})
    content: bytes = model.SerializeToString()
    return content


def run_onnx(content: bytes) -> Act:
    """The policy of an ONNX model, run by onnxruntime on one CPU thread."""
    session, _ = _onnx_session(content)

    def act(observation_BO: NDArray[Any]) -> NDArray[np.float32]:
        (action_BA,) = session.run(["action"], {"observation": np.asarray(observation_BO, np.float32)})
        return np.asarray(action_BA, dtype=np.float32)

    return act


def _onnx_session(content: bytes) -> tuple[Any, dict[str, str]]:
    runtime = _package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session, dict(session.get_modelmeta().custom_metadata_map)


FORMATS = {
    "torch-export": FileFormat(".pt2", encode_program, run_program),
    "onnx": FileFormat(".onnx", encode_onnx, run_onnx),
}


def open_export(path: Path) -> Policy:
    """The policy in a file from `export_file` or in a folder for RLlib. Raises DataError for anything else."""
    try:
        if path.is_dir():
            about = read_json(path / ABOUT)
            act: Act = actor_of(load(read_bytes(path / "actor.safetensors"))).act_numpy
        elif path.suffix == ".onnx":
            content = read_bytes(path)
            about, act = parse_json(_onnx_session(content)[1][ABOUT]), run_onnx(content)
        else:
            about, act = _read_program(path)
        return Policy(str(path), parse_domain(about["domain"]), act)
    except (ConfigError, DataError):
        raise
    except Exception as error:  # each library raises its own errors
        raise DataError(
            f"not an export of this platform: {told(error)}",
            where=str(path),
            remedy=WANTED,
        ) from error


def _read_program(path: Path) -> tuple[dict[str, Any], Act]:
    with zipfile.ZipFile(io.BytesIO(read_bytes(path))) as archive:
        parts = {item.filename.rsplit("/", 1)[-1]: item for item in archive.infolist()}
        for name in (ABOUT, _PARAMETERS):
            require_stored(parts[name].file_size, parts[name].compress_size, f"{path} · {name}")
        about = parse_json(archive.read(parts[ABOUT]))
        parameters = base64.b64decode(archive.read(parts[_PARAMETERS]))
    return about, actor_of(load(parameters)).act_numpy


def write_about(policy: TrainedPolicy, folder: Path) -> None:
    """Add to a folder in another library's format a description and the parameters as safetensors."""
    (folder / ABOUT).write_text(json.dumps(policy.about, indent=1) + "\n")
    (folder / "actor.safetensors").write_bytes(save(policy.actor.state_dict()))


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"the package {name} is not installed", where="format onnx", remedy="pip install 'v2a_ray[export]'"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the log messages and warnings of PyTorch's exporters and RLlib."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
