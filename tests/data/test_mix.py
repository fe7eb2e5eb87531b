"""Mixes: shares, draws, held-out episodes, sources that are left out."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.builders import arrays_of, make_table, write_hdf5
from tests.data.test_mixture import hopper_table
from v2a_ray.data.checks import check_table
from v2a_ray.data.config import DataSpec, TargetSpec
from v2a_ray.data.formats.readers import LARGE_BYTES
from v2a_ray.data.mixing.mixture import (
    apportion,
    held_out_episodes,
    load_data,
    load_source,
    mix_name,
    mix_sources,
    take,
)
from v2a_ray.data.table.folder import read_manifest, read_table_folder
from v2a_ray.data.table.manifest import content_hash
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import ConfigError, DataError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import resolve
from v2a_ray.settings.yaml_files import validate

TARGET = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 50}


def experiment(sources, **more) -> ExperimentConfig:
    return validate(ExperimentConfig, {"name": "mixed", "method": "iql", "target": TARGET, "sources": sources, **more})


def file_source(path="a.hdf5", **more):
    return {"domain": "hopper/gravity-0.5", "path": str(path), **more}


tables = st.builds(make_table, st.lists(st.integers(1, 9), min_size=1, max_size=12), seed=st.integers(0, 5))


@given(table=tables, seed=st.integers(0, 9), num_episodes=st.integers(1, 15), replacement=st.booleans())
def test_draws_are_whole_aligned_and_reproducible(table, seed, num_episodes, replacement) -> None:
    spec = DataSpec(
        domain="hopper", path="x", num_episodes=num_episodes, subsample="episodes", replacement=replacement, seed=seed
    )
    drawn, again = take(table, spec), take(table, spec)
    assert drawn.episode_id == again.episode_id
    np.testing.assert_array_equal(drawn.observation, again.observation)
    assert drawn.num_episodes == (num_episodes if replacement else min(num_episodes, table.num_episodes))
    assert replacement or len(set(drawn.episode_id)) == drawn.num_episodes
    relabelled = drawn.labelled(source="drawn", domain="unknown", behavior="unknown")
    assert [finding for finding in check_table(relabelled, where="drawn") if finding.severity == "error"] == []


@given(table=tables, seed=st.integers(0, 9), count=st.integers(1, 60), data=st.data())
def test_exact_numbers_of_transitions(table, seed, count, data) -> None:
    subsample = data.draw(st.sampled_from(["first", "episodes", "transitions"]))
    replacement = subsample != "first" and data.draw(st.booleans())
    spec = TargetSpec(
        domain="hopper", path="x", num_transitions=count, subsample=subsample, replacement=replacement, seed=seed
    )
    taken = take(table, spec)
    assert taken.num_transitions == (count if replacement else min(count, table.num_transitions))
    rows = {row.tobytes() for row in np.hstack([table.observation, table.next_observation])}
    assert all(row.tobytes() in rows for row in np.hstack([taken.observation, taken.next_observation]))
    assert (taken.terminated != taken.truncated).all() and taken.lengths.sum() == taken.num_transitions


@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), total=st.integers(1, 10_000))
def test_weights_give_the_shares_within_one_transition(weights, total) -> None:
    fractions = np.asarray(weights) / sum(weights)
    counts = apportion(fractions, total)
    assert counts.sum() == total
    assert (np.abs(counts - fractions * total) < 1 + 1e-9).all()


@given(num_episodes=st.integers(0, 300), fraction=st.floats(0, 0.99), seed=st.integers(0, 3))
def test_held_out_episodes(num_episodes, fraction, seed) -> None:
    held_out = held_out_episodes(num_episodes, fraction, seed, "near")
    assert len(set(held_out.tolist())) == len(held_out)
    np.testing.assert_array_equal(held_out, held_out_episodes(num_episodes, fraction, seed, "near"))
    if fraction and num_episodes > 1:
        assert 1 <= len(held_out) < num_episodes and abs(len(held_out) - fraction * num_episodes) <= 1
        assert held_out[0] >= 0 and held_out[-1] < num_episodes
    else:
        assert not len(held_out)


def test_weights_become_numbers_of_transitions() -> None:
    config = experiment([file_source(name="a", weight=3), file_source(name="b", weight=1)], mix={"num_transitions": 10})
    assert [(spec.label, spec.num_transitions) for spec in mix_sources(config)] == [("a", 8), ("b", 2)]
    rolled = {"domain": "hopper/stock", "behavior": "random", "weight": 1.0}
    config = experiment([rolled], mix={"num_transitions": 10})
    assert mix_sources(config)[0].num_transitions == 10
    few = experiment([file_source(name="a", weight=1e-9), file_source(name="b", weight=1)], mix={"num_transitions": 10})
    with pytest.raises(ConfigError, match="less than one of 10 transitions"):
        mix_sources(few)


CONTRADICTIONS = {
    "weight and number": (file_source(weight=1, num_transitions=5), "contradict each other"),
    "weight without a total": (file_source(weight=1), "need each other"),
    "draws from roll-outs": (
        {"domain": "hopper", "behavior": "random", "num_transitions": 5, "subsample": "episodes"},
        "need a path",
    ),
    "replacement of the first": (file_source(num_transitions=5, replacement=True), "replacement needs subsample"),
    "single transitions of a source": (file_source(num_transitions=5, subsample="transitions"), "whole episodes"),
    "replacement without end": (file_source(subsample="episodes", replacement=True), "need num_transitions"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_are_named(case) -> None:
    source, message = CONTRADICTIONS[case]
    with pytest.raises(ConfigError, match=message):
        experiment([source])


def test_the_published_draw_of_a_target(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", arrays_of(hopper_table((200,) * 3)))
    spec = TargetSpec(domain="hopper", path="a.hdf5", num_transitions=60, subsample="transitions", replacement=True)
    reading = load_data(spec, "target", tmp_path)
    assert reading.table.num_transitions == reading.table.num_episodes == 60 and not reading.ordered
    assert len(set(reading.table.episode_id)) == 60


def test_the_name_and_key_of_a_mix_depend_on_its_content(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", arrays_of(hopper_table()))
    settings = {"data_root": str(tmp_path), "store": str(tmp_path / "store")}
    keys = {}
    for label, source, mix in (
        ("all", {}, {}),
        ("spelled out", {"subsample": "first", "seed": 3}, {"validation_fraction": 0.0, "seed": 5}),
        ("capped", {"num_episodes": 2}, {}),
        ("drawn", {"num_episodes": 2, "subsample": "episodes"}, {}),
        ("drawn by another seed", {"num_episodes": 2, "subsample": "episodes", "seed": 1}, {}),
        ("replaced", {"num_episodes": 2, "subsample": "episodes", "replacement": True}, {}),
        ("held out", {}, {"validation_fraction": 0.3}),
        ("held out by another seed", {}, {"validation_fraction": 0.3, "seed": 1}),
    ):
        config = experiment([file_source(**source)], mix=mix, **settings)
        keys[label] = make_plan(config)["source"].key
    assert keys["all"] == keys.pop("spelled out") and len(set(keys.values())) == len(keys)
    assert mix_name(config, keys["all"]).startswith(f"mix {keys['all'][:8]}: hopper-gravity-0.5-unknown")


def test_mix_command(ray_cluster: None, tmp_path: Path) -> None:
    from v2a_ray.orchestration.data.mix import make_mix, preview_mix
    from v2a_ray.orchestration.train.listener import Listener

    for name, seed in (("near", 0), ("far", 1)):
        write_hdf5(tmp_path / f"{name}.hdf5", arrays_of(hopper_table((40,) * 10, seed=seed)))
    (tmp_path / "broken.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    sources = [file_source(f"{name}.hdf5", name=name, on_error="skip") for name in ("near", "far", "broken", "gone")]
    settings = {"data_root": str(tmp_path), "store": str(tmp_path / "store")}
    config = experiment(sources, mix={"validation_fraction": 0.2}, **settings)
    rows = preview_mix(config)
    assert [(row.source, row.num_episodes, row.num_held_out) for row in rows] == [
        ("near", 10, 2),
        ("far", 10, 2),
        ("broken", 0, 0),
        ("gone", 0, 0),
    ]
    manifest = make_mix(config, tmp_path / "mix", Listener())
    assert [(refused["source"], "HDF5" in refused["reason"]) for refused in manifest["refused"]] == [
        ("broken", True),
        ("gone", False),
    ]
    table, held_out = read_table_folder(tmp_path / "mix"), read_table_folder(tmp_path / "mix" / "validation")
    assert (table.num_episodes, held_out.num_episodes) == (16, 4)
    expected = {f"{name}/{index:06d}" for name in ("near", "far") for index in range(10)}
    assert {*table.episode_id, *held_out.episode_id} == expected
    recorded = manifest["validation"]["episodes"]
    assert {f"{name}/{index:06d}" for name in recorded for index in recorded[name]} == set(held_out.episode_id)
    assert manifest["mix"]["name"].startswith("mix " + manifest["mix"]["hash"][:8])
    assert read_manifest(tmp_path / "mix" / "validation")["num_transitions"] == 160

    # The same mix stops with `on_error: stop`, and an empty mix is refused.
    with pytest.raises(DataError, match="not readable as HDF5"):
        make_mix(experiment([*sources[:2], sources[2] | {"on_error": "stop"}], **settings), tmp_path / "b", Listener())
    with pytest.raises(DataError, match="all 2 sources were refused"):
        make_mix(experiment(sources[2:], **settings), tmp_path / "c", Listener())
    assert not (tmp_path / "b").exists() and not (tmp_path / "c").exists()


def test_data_by_uri_are_the_same_data(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", arrays_of(hopper_table()))
    by_path = experiment([file_source()], data_root=str(tmp_path), store=str(tmp_path / "store"))
    by_uri = experiment([file_source(f"file://{tmp_path}/a.hdf5")], store=str(tmp_path / "store"))
    by_root = experiment([file_source()], data_root=f"file://{tmp_path}", store=str(tmp_path / "store"))
    keys = {make_plan(config)["source"].key for config in (by_path, by_uri, by_root)}
    assert len(keys) == 1
    tables = [load_source(config.sources[0], config.data_root).table for config in (by_path, by_uri, by_root)]
    assert len({content_hash(table) for table in tables}) == 1


@pytest.mark.parametrize("root", [".", "~/mine"])
def test_relative_data_are_those_of_the_command_not_of_the_workers(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    """Workers of Ray stay in the folder in which it was started: a file of the same name there is another one."""
    from v2a_ray.orchestration.data.mix import make_mix
    from v2a_ray.orchestration.train.listener import Listener

    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    write_hdf5(Path("a.hdf5"), arrays_of(hopper_table()))
    raw = {"name": "mixed", "method": "iql", "target": TARGET, "sources": [file_source()], "data_root": root}
    manifest = make_mix(resolve(raw | {"store": str(tmp_path / "store")}), tmp_path / "mix", Listener())
    assert manifest["num_transitions"] == hopper_table().num_transitions


@pytest.mark.slow
def test_a_large_file_of_a_mix_is_read_by_many_tasks(ray_cluster: None, tmp_path: Path) -> None:
    from v2a_ray.orchestration.data.mix import make_mix
    from v2a_ray.orchestration.train.listener import Listener

    hashes = []
    for size in (0, LARGE_BYTES):
        write_hdf5(tmp_path / "a.hdf5", arrays_of(hopper_table((40,) * 10)))
        # Bytes after the end of an HDF5 file are not its content; the hole takes no disk space.
        os.truncate(tmp_path / "a.hdf5", max(size, (tmp_path / "a.hdf5").stat().st_size))
        config = experiment([file_source()], data_root=str(tmp_path), store=str(tmp_path / f"store-{size}"))
        hashes.append(make_mix(config, tmp_path / "mix", Listener())["content_hash"])
    assert hashes[0] == hashes[1]
    # A source of any size has to be in order.
    order = np.random.default_rng(0).permutation(400)
    shuffled = {name: values[order] for name, values in arrays_of(hopper_table((40,) * 10)).items()}
    write_hdf5(tmp_path / "a.hdf5", shuffled)
    os.truncate(tmp_path / "a.hdf5", LARGE_BYTES)
    with pytest.raises(DataError, match="not in order of time"):
        make_mix(config, tmp_path / "other", Listener())
