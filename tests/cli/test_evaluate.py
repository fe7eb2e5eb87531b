"""`v2a evaluate` and `v2a select`: numbers, films, and the messages for users' errors."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import imageio.v3
import numpy as np
import pytest

from tests.cli.command import v2a, v2a_here
from tests.cli.finished_run import finished_run
from v2a_ray.domains import normalized_score, parse_domain
from v2a_ray.domains.rollout import roll_out
from v2a_ray.errors import DataError
from v2a_ray.evaluation.interval import mean_interval
from v2a_ray.evaluation.offline import OfflineNumbers
from v2a_ray.export.find import find_policy
from v2a_ray.export.formats import open_export
from v2a_ray.export.selection import Candidate, rank_correlation
from v2a_ray.outputs import ABOUT


def test_a_run_in_two_domains_with_numbers_and_film(tmp_path: Path) -> None:
    finished_run(tmp_path / "run")
    command = ["evaluate", "run", "-d", "hopper/stock", "-d", "hopper/gravity-0.5", "-n", "3", "--seed", "7"]
    done = v2a(*command, "-o", "r.json", "--video", "film.gif", "--video-seconds", "0.4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "r.json").read_text())
    assert [entry["domain"] for entry in content["domains"]] == ["hopper/stock@d4rl", "hopper/gravity-0.5@d4rl"]
    for entry in content["domains"]:
        domain = parse_domain(entry["domain"])
        returns, lengths = roll_out(find_policy(str(tmp_path / "run")).act, domain, 3, seed=7)
        assert entry["returns"] == returns.tolist() and entry["lengths"] == lengths.tolist()
        assert entry["normalized_score_mean"] == pytest.approx(float(normalized_score(domain, returns).mean()))
        low, high = entry["return_mean_interval"]
        assert min(returns) - 1e-9 <= low <= returns.mean() <= high <= max(returns) + 1e-9
    film = imageio.v3.imread(tmp_path / "film.gif")
    # 0.4 s at 25 pictures a second, or less if the robot fell; pictures differ, because it moves.
    assert 2 <= len(film) <= 11 and (film[0] != film[-1]).any()
    again = v2a_here(*command, "-o", "r.json", "--video", "film.gif", "--video-seconds", "0.1", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_intervals() -> None:
    values = np.random.default_rng(0).normal(10.0, 2.0, 400)
    low, high = mean_interval(values)
    # The normal theory's half width is 1.96 * std / sqrt(400).
    half = 1.96 * values.std() / 20.0
    assert low == pytest.approx(values.mean() - half, abs=0.02)
    assert high == pytest.approx(values.mean() + half, abs=0.02)
    assert np.isnan(mean_interval(np.asarray([3.0]))).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "-d", "ant"], "a policy of hopper and cannot act on ant"),
        (["run", "-d", "hopper/moon"], "no such shift"),
        (["run", "-o", "run/result.json"], "exists and v2a_ray did not write it"),
        (["run", "--video", "film.avi"], "no film format '.avi'"),
        (["hopper/stock:genius"], "no behaviour 'genius'"),
        (["nowhere"], "neither a file or folder nor DOMAIN:BEHAVIOR"),
        (["run/result.json"], "not an export of this platform"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], message: str, tmp_path: Path) -> None:
    finished_run(tmp_path / "run")
    done = v2a_here("evaluate", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr and not done.stdout


def test_select_orders_runs_and_reports_the_rank_correlation(tmp_path: Path) -> None:
    for seed in range(3):
        finished_run(tmp_path / f"run{seed}", seed, return_mean=100.0 * seed)
    done = v2a_here("select", "run0", "run1", "run2", "--steps", "5", "--critics", "2", "-o", "s.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "s.json").read_text())
    errors = [entry["td_error"] for entry in content["policies"]]
    assert errors == sorted(errors)
    for entry in content["policies"]:
        assert entry["lower_value"] == pytest.approx(entry["value"] - np.std(entry["value_of_critic"]))
    assert {entry["policy"]: entry["true_return"] for entry in content["policies"]} == {
        "run0": 0.0,
        "run1": 100.0,
        "run2": 200.0,
    }
    # A fifth of 80 transitions is 16: two episodes of ten.
    assert all(entry["num_held_out_episodes"] == 2 for entry in content["policies"])
    assert f"rank correlation with true returns: {content['rank_correlation']:.2f}" in done.stdout


def test_rank_correlation_by_hand() -> None:
    def candidates(*returns: float | None) -> list[Candidate]:
        numbers = OfflineNumbers(None, None, 0.0, num_episodes=1, num_transitions=1)
        scored = zip((4.0, 3.0, 2.0, 1.0), returns, strict=True)
        return [Candidate("", numbers, score, known) for score, known in scored]

    # Ranks differ by 0, 1, 1, 0: 1 - 6 * 2 / (4 * 15).
    assert rank_correlation(candidates(9.0, 5.0, 7.0, 1.0)) == pytest.approx((0.8, 4))
    assert rank_correlation(candidates(1.0, 2.0, 3.0, None)) == pytest.approx((-1.0, 3))
    assert np.isnan(rank_correlation(candidates(1.0, 2.0, None, None))[0])
    assert np.isnan(rank_correlation(candidates(1.0, 1.0, 1.0, 1.0))[0])


def test_select_refuses_runs_of_different_data_and_policies_without_any(tmp_path: Path) -> None:
    finished_run(tmp_path / "one")
    finished_run(tmp_path / "two", data_seed=1)
    for arguments, message in (
        (["one", "two"], "its target data are not those of one"),
        (["hopper/stock:medium"], "none of the policies is a run"),
        (["one", "ant/stock:medium"], "a policy of ant and cannot act on hopper"),
    ):
        done = v2a_here("select", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr


def test_an_export_that_inflates_to_a_gigabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (ABOUT, "actor.safetensors.base64"):
            with archive.open(f"policy/extra/{name}", "w", force_zip64=True) as member:
                for _ in range(300):
                    member.write(b" " * 2**20)
    with pytest.raises(DataError, match="claims 314,572,800 bytes"):
        open_export(path)
