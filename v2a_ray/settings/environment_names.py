"""How the name of a domain says which Gymnasium environment it is, and with what settings.

Grammar: `gym:ENVIRONMENT[?KEY=VALUE[&KEY=VALUE...]][/SHIFT[+SHIFT...]]`, for example

    gym:Hopper-v5/gravity-0.5
    gym:my_package.robots:Arm?max_episode_steps=200

ENVIRONMENT is an ID of gymnasium's registry or `package.module:Class`. A name says everything, because it is what
travels to other processes and what artifacts are keyed by. Values are JSON where they can be, else text.

`mjcf:PATH.yaml`, in place of `gym:ENVIRONMENT`, is a robot that a YAML file makes of a MuJoCo model; settings and
shifts follow as above. `real[:NAME]?observation_dim=O&action_dim=A` is a robot of which there are recordings and no
simulator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

PREFIX = "gym:"
ROBOT_FILE = "mjcf:"
RECORDED = "real"
RECORDED_SETTINGS = ("observation_dim", "action_dim", "max_episode_steps")
"""What the name of a robot without a simulator says of it; the last one may be left out."""
_READABLE = ',:[]{}".-'
_VERSIONED = re.compile(r"[\w.-]+-v\d+")


def is_environment(name: str) -> bool:
    """Whether a domain's name is that of a Gymnasium environment, or of a robot's file."""
    return name.strip().startswith((PREFIX, ROBOT_FILE))


def is_robot_file(environment: str) -> bool:
    """Whether ENVIRONMENT is a robot's file."""
    return environment.startswith(ROBOT_FILE)


def with_absolute_file(name: str) -> str:
    """The name of a domain, whose robot's file, if it is one, is found from every working directory."""
    if not is_robot_file(name):
        return name
    file, rest = _split_file(name)
    return f"{ROBOT_FILE}{Path(file).expanduser().absolute()}{rest}"


def is_behavior_file(behavior: str) -> bool:
    """Whether the name of a behaviour is that of a file with a policy."""
    return behavior.endswith((".safetensors", ".onnx"))


def is_recorded(name: str) -> bool:
    """Whether a domain's name is that of a robot without a simulator."""
    return re.fullmatch(rf"{RECORDED}(:[\w.-]*)?(\?.*)?", name.strip()) is not None


def split_recorded(name: str) -> tuple[str, dict[str, Any]]:
    """`real[:NAME]` and its settings. Raises ValueError for settings that are no `KEY=VALUE`."""
    robot, _, query = name.strip().partition("?")
    return robot, dict(_setting(each) for each in query.split("&")) if query else {}


def with_dimensions(name: str, settings: Mapping[str, Any]) -> str:
    """The name with some of `RECORDED_SETTINGS` laid over its own. Raises ValueError for a robot with a simulator."""
    if not is_recorded(name):
        raise ValueError(f"{', '.join(settings)}: for domain {RECORDED} alone; {name} has dimensions of its own")
    robot, own = split_recorded(name)
    return robot + _query({**own, **settings})


def split_name(name: str) -> tuple[str, dict[str, Any], str]:
    """ENVIRONMENT, its settings, and what follows the slash. Raises ValueError for settings that are no `KEY=VALUE`."""
    if is_robot_file(name.strip()):
        file, rest = _split_file(name.strip())
        query, _, shifts = rest.removeprefix("?").partition("/")
        return ROBOT_FILE + file, dict(_setting(each) for each in query.split("&")) if query else {}, shifts
    body = name.strip().removeprefix(PREFIX)
    head, question, rest = body.partition("?")
    if question:
        query, _, shifts = rest.partition("/")
        return head, dict(_setting(each) for each in query.split("&")), shifts
    environment, _, shifts = body.partition("/")
    second, _, after = shifts.partition("/")
    if _VERSIONED.fullmatch(second):  # of a namespace, `lab/Arm-v0`
        return f"{environment}/{second}", {}, after
    return environment, {}, shifts


def join_name(environment: str, settings: Mapping[str, Any], shifts: str = "") -> str:
    """The canonical name of the parts; inverse of `split_name`."""
    prefix = "" if is_robot_file(environment) else PREFIX
    return prefix + environment + _query(settings) + (f"/{shifts}" if shifts else "")


def with_settings(name: str, settings: Mapping[str, Any]) -> str:
    """The name with `settings` laid over its own. Raises ValueError where it is not that of an environment."""
    if not is_environment(name):
        raise ValueError(f"environment: settings are for {PREFIX}ENVIRONMENT, and {name} is none")
    environment, own, shifts = split_name(name)
    return join_name(environment, {**own, **settings}, shifts)


def without_folders(name: str) -> str:
    """The name of a domain or behaviour; of a file its label, which is the same wherever the file lies."""
    return label_of(name) if is_robot_file(name) or is_behavior_file(name) else name


def label_of(name: str) -> str:
    """The name of a domain or behaviour as a part of a file name, without an environment's settings and folders."""
    if is_behavior_file(name):
        name = Path(name).stem
    if is_environment(name):
        environment, _, shifts = split_name(name)
        if is_robot_file(environment):
            environment = environment.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        name = f"{environment}/{shifts}" if shifts else environment
    elif is_recorded(name):
        name, _ = split_recorded(name)
    return re.sub(r"[^\w.+-]", "-", name)


def _split_file(name: str) -> tuple[str, str]:
    """PATH of `mjcf:PATH.yaml`, and what follows it."""
    found = re.fullmatch(r"(.+?\.ya?ml)([?/].*)?", name.removeprefix(ROBOT_FILE))
    if found is None:
        raise ValueError(f"{name}: a robot's file ends in .yaml")
    return found.group(1), found.group(2) or ""


def _query(settings: Mapping[str, Any]) -> str:
    """`?KEY=VALUE&KEY=VALUE` in alphabetical order; empty without settings."""
    pairs = [f"{key}={quote(_text(value), safe=_READABLE)}" for key, value in sorted(settings.items())]
    return "?" + "&".join(pairs) if pairs else ""


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"{text!r} is not KEY=VALUE")
    value = unquote(value)
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _text(value: Any) -> str:
    """JSON, or the text itself where reading it back gives the same text."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
