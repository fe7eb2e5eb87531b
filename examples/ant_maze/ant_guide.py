"""A behaviour for AntMaze's U-shaped maze: the ant's own running policy, turned towards the next corner of the route.

The policy runs along +x with its body turned as at the start. An ant that is to run elsewhere is shown to it turned:
the world by the heading, and the body by as many quarter turns as bring it closest. The ant looks the same after a
quarter turn, except that its legs have changed places, and that two ankles bend the other way.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.behaviors import load_behavior

Float = NDArray[np.float64]
RUN = load_behavior("ant/stock", "expert")
ROUTE = np.array([[4.0, 4.0], [4.0, -4.0], [-4.0, -4.0]])
"""Centres in metres of the corners behind the start, (-4, 4), and of the goal."""
ANKLE_SIGNS = np.array([1.0, -1.0, -1.0, 1.0])
"""In which direction each leg's ankle bends."""
LEG_OF_ACTUATOR = np.array([3, 0, 1, 2])
"""Joints are in the order of the legs; actuators begin with the last leg."""


def run_the_u(observation: Float) -> Float:
    """Torques (8,) in [-1, 1] for an observation (31,): the ant's (27,), desired goal (2,), position (2,) in metres."""
    position = observation[-2:]
    way = _next_corner(position) - position
    return _run_towards(observation[:27], float(np.arctan2(way[1], way[0])))


def _next_corner(position: Float) -> Float:
    x, y = position
    if y > 2.0 and x < 3.0:
        return ROUTE[0]
    return ROUTE[1] if y > -3.0 and x > 1.5 else ROUTE[2]


def _run_towards(ant: Float, heading: float) -> Float:
    quarter = np.pi / 2.0
    orientation = ant[1:5]
    num_quarters = round((heading - _yaw(orientation)) / quarter)
    legs = (np.arange(4) + num_quarters) % 4
    signs = ANKLE_SIGNS[legs] * ANKLE_SIGNS

    def joints(values: Float) -> Float:
        seen = values.reshape(4, 2)[legs]
        return np.column_stack([seen[:, 0], signs * seen[:, 1]]).ravel()

    turned = _product(_product(_about_z(-heading), orientation), _about_z(num_quarters * quarter))
    shown = [
        ant[:1],
        np.copysign(1.0, turned[0]) * turned,  # q and -q are the same orientation
        joints(ant[5:13]),
        _rotated(ant[13:15], -heading),  # velocity in the world
        ant[15:16],
        _rotated(ant[16:18], -num_quarters * quarter),  # angular velocity in the body
        ant[18:19],
        joints(ant[19:27]),
    ]
    action = RUN.act(np.concatenate(shown)[None].astype(np.float32))[0].reshape(4, 2)
    of_legs = np.empty((4, 2))
    of_legs[LEG_OF_ACTUATOR] = action
    of_legs[:, 1] *= signs
    back = np.empty((4, 2))
    back[legs] = of_legs
    return back[LEG_OF_ACTUATOR].ravel()


def _yaw(q: Float) -> float:
    return float(np.arctan2(2.0 * (q[0] * q[3] + q[1] * q[2]), 1.0 - 2.0 * (q[2] ** 2 + q[3] ** 2)))


def _about_z(angle: float) -> Float:
    return np.array([np.cos(angle / 2.0), 0.0, 0.0, np.sin(angle / 2.0)])


def _rotated(vector: Float, angle: float) -> Float:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([cosine * vector[0] - sine * vector[1], sine * vector[0] + cosine * vector[1]])


def _product(a: Float, b: Float) -> Float:
    """Of two quaternions (w, x, y, z)."""
    scalar = a[0] * b[0] - a[1:] @ b[1:]
    return np.concatenate([[scalar], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])])
