"""Domains: robots, physics versions, dynamics shifts, reference scores and behaviour policies.

    from v2a_ray.domains import make_environment, parse_domain
    environment = make_environment("hopper/gravity-0.5@d4rl")

Importing this package registers every named domain with gymnasium (`v2a/hopper-gravity-0.5-d4rl-v0`).
"""

from v2a_ray.domains.base import Domain
from v2a_ray.domains.domain import PHYSICS, RobotDomain, catalogue, parse_domain
from v2a_ray.domains.environments import make_environment, register_all
from v2a_ray.domains.references import References, normalized_score, references
from v2a_ray.domains.robot_spec import RobotSpec, all_robots
from v2a_ray.domains.shifts.execution import Execution
from v2a_ray.domains.shifts.kinds import Shift

__all__ = [
    "PHYSICS",
    "Domain",
    "Execution",
    "References",
    "RobotDomain",
    "RobotSpec",
    "Shift",
    "all_robots",
    "catalogue",
    "make_environment",
    "normalized_score",
    "parse_domain",
    "references",
    "register_all",
]

register_all()
