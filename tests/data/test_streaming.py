"""Memory-mapped transitions, and drawing from them in memory and through a shuffle buffer."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.builders import ACTION_DIM, OBSERVATION_DIM, make_table
from v2a_ray.data.loading import streaming
from v2a_ray.data.loading.memory_mapped import ROWS, MemoryMappedTransitions, raw_rows, write_rows
from v2a_ray.data.loading.sampler import EpisodeValues, Preprocessing, Transitions
from v2a_ray.data.loading.streaming import StreamedTransitions, open_transitions
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import write_table
from v2a_ray.errors import ConfigError, DataError

PREPROCESSING = Preprocessing(
    np.linspace(-1, 1, OBSERVATION_DIM, dtype=np.float32), np.linspace(0.5, 3, OBSERVATION_DIM, dtype=np.float32), 0.3
)
ROW_BYTES = (2 * OBSERVATION_DIM + ACTION_DIM + 2) * 4


def row_file(table: EpisodeTable, folder: Path) -> MemoryMappedTransitions:
    write_table(table, folder / "table", num_files=3)
    (folder / "rows").mkdir()
    write_rows(folder / "table", folder / "rows")
    return MemoryMappedTransitions.open(folder / "rows")


@pytest.fixture(scope="module")
def table() -> EpisodeTable:
    """4,000 transitions; the reward of a transition is its number."""
    made = make_table((50, 30, 20) * 40)
    return made.replace(reward=np.arange(made.num_transitions, dtype=np.float32))


@pytest.fixture(scope="module")
def file(table: EpisodeTable, tmp_path_factory: pytest.TempPathFactory) -> MemoryMappedTransitions:
    return row_file(table, tmp_path_factory.mktemp("rows"))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 10 * ROW_BYTES)
    monkeypatch.setattr(streaming, "OVERHEAD_BYTES", 0)


def streamed(file: MemoryMappedTransitions, *, share: float = 0.25, seed: int = 0, columns=None) -> StreamedTransitions:
    """A stream with a buffer for the fraction `share` of the table."""
    rows = int(share * file.num_transitions) + (streaming.READ_AHEAD_BLOCKS + 3) * 10
    extra = sum(values.nbytes for values in (columns or {}).values())
    return StreamedTransitions(file, PREPROCESSING, columns, memory_bytes=rows * (ROW_BYTES + 8) + extra, seed=seed)


def drawn(sampler, batch_size: int, num_batches: int, seed: int = 0) -> np.ndarray:
    """(batches, B) numbers of the transitions drawn."""
    generator = torch.Generator().manual_seed(seed)
    rewards = [sampler.sample(batch_size, generator).reward_B for _ in range(num_batches)]
    return np.rint(torch.stack(rewards).numpy() / 0.3).astype(int)


def assert_same_batch(first, second) -> None:
    for name in ("observation_BO", "action_BA", "next_observation_BO", "reward_B", "not_done_B"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert first.extra.keys() == second.extra.keys()
    for name, values in first.extra.items():
        assert torch.equal(values, second.extra[name]), name


def test_a_row_file_holds_the_table_in_order(table: EpisodeTable, file: MemoryMappedTransitions) -> None:
    assert file.episode_id == table.episode_id
    np.testing.assert_array_equal(file.offsets, table.offsets)
    np.testing.assert_array_equal(file.map().numpy(), raw_rows(table))
    np.testing.assert_array_equal(file.read(95, 130), raw_rows(table)[95:130])
    np.testing.assert_array_equal(file.read(3990, 9999), raw_rows(table)[3990:])
    not_done = raw_rows(table)[:, -1]
    assert (not_done[table.offsets[1:] - 1] == 1.0 - table.terminated).all() and not_done.sum() == 4000 - 60


def test_a_mapped_table_gives_the_batches_of_a_copied_one(table: EpisodeTable, file: MemoryMappedTransitions) -> None:
    column = np.arange(4000, dtype=np.float32)
    latent = np.random.default_rng(0).normal(size=(table.num_episodes, 4)).astype(np.float32)
    columns: dict[str, Any] = {"advantage": column, "z": EpisodeValues(latent, table.offsets)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samplers = [Transitions(data, PREPROCESSING, columns) for data in (table, file)]
        batches = [sampler.sample(500, torch.Generator().manual_seed(3)) for sampler in samplers]
    assert_same_batch(*batches)
    rows = batches[0].extra["advantage"].long().numpy()
    standardized = (table.observation[rows] - PREPROCESSING.observation_mean) / PREPROCESSING.observation_std
    np.testing.assert_array_equal(batches[0].observation_BO.numpy(), standardized)
    np.testing.assert_array_equal(batches[0].action_BA.numpy(), table.action[rows])
    np.testing.assert_array_equal(batches[0].reward_B.numpy(), table.reward[rows] * np.float32(0.3))
    np.testing.assert_array_equal(batches[0].extra["z"].numpy(), latent[table.episode_of_row[rows]])
    # Drawing does not change the shared rows.
    np.testing.assert_array_equal(file.map().numpy(), raw_rows(table))


def test_a_streamed_batch_holds_transitions_of_the_table_with_their_columns(file: MemoryMappedTransitions) -> None:
    columns = {"advantage": np.arange(4000, dtype=np.float32) * 2}
    sampler = streamed(file, columns=columns)
    whole = Transitions(file, PREPROCESSING, columns)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        batch = sampler.sample(64, generator)
        assert_same_batch(batch, whole.at((batch.extra["advantage"] / 2).long()))


def test_every_transition_is_drawn_about_equally_often(file: MemoryMappedTransitions) -> None:
    num_passes = 50
    counts = np.bincount(drawn(streamed(file), 100, 40 * num_passes).ravel(), minlength=4000)
    # As from the whole table: Poisson with one draw per pass.
    assert abs(counts.mean() - num_passes) < 1e-9
    assert counts.min() > 0.4 * num_passes and counts.max() < 1.8 * num_passes
    assert counts.var() == pytest.approx(num_passes, rel=0.15)


def test_a_batch_mixes_the_table(file: MemoryMappedTransitions) -> None:
    """The table's first fifth is a fifth of the draws at any time, because blocks are read in random order."""
    share = (drawn(streamed(file), 100, 400) < 800).mean(axis=1)
    # 100 blocks in the buffer: standard deviation 0.04 of its content and 0.04 of a batch of 100.
    assert abs(share.mean() - 0.2) < 0.01
    assert share.std() < 0.08 and share.min() > 0.0


def test_draws_depend_on_the_seed_and_not_on_the_speed(
    file: MemoryMappedTransitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = drawn(streamed(file), 32, 300)
    monkeypatch.setattr(streaming, "READ_AHEAD_BLOCKS", 1)
    sampler = streamed(file)
    np.testing.assert_array_equal(drawn(sampler, 32, 300), first)
    assert (drawn(streamed(file, seed=1), 32, 300) != first).any()


@settings(max_examples=25, deadline=None)
@given(
    before=st.integers(0, 90),
    share=st.sampled_from([0.07, 0.11, 0.5, 0.93, 2.0]),
    batch_size=st.sampled_from([1, 7, 64]),
    eligible=st.booleans(),
)
def test_a_checkpoint_goes_on_with_the_same_batches(
    file: MemoryMappedTransitions, before: int, share: float, batch_size: int, eligible: bool
) -> None:
    def make() -> StreamedTransitions:
        sampler = streamed(file, share=share)
        return sampler.restricted(torch.arange(0, 4000, 3)) if eligible else sampler

    generator = torch.Generator().manual_seed(5)
    original, resumed = make(), make()
    for _ in range(before):
        original.sample(batch_size, generator)
    state, random = original.state_dict(), generator.get_state()
    expected = [original.sample(batch_size, generator) for _ in range(30)]
    resumed.load_state_dict(state)
    generator.set_state(random)
    for batch in expected:
        assert_same_batch(batch, resumed.sample(batch_size, generator))


@pytest.mark.parametrize("kind", [Transitions, StreamedTransitions])
def test_only_eligible_rows_are_drawn(file: MemoryMappedTransitions, kind: type) -> None:
    eligible = torch.tensor([*range(5, 1000, 7), *range(3500, 3900)])
    sampler = (streamed(file) if kind is StreamedTransitions else Transitions(file, PREPROCESSING)).restricted(eligible)
    assert len(sampler) == len(eligible)
    assert set(drawn(sampler, 100, 200).ravel()) == set(eligible.tolist())


@pytest.mark.parametrize("num_rows", [1, 999, 4000, 10_000])
def test_chunks_are_the_table_in_order(file: MemoryMappedTransitions, num_rows: int) -> None:
    column = {"advantage": np.arange(4000, dtype=np.float32)}
    samplers: list[Any] = [Transitions(file, PREPROCESSING, column), streamed(file, columns=column)]
    for mapped, read in zip(*(sampler.chunks(num_rows) for sampler in samplers), strict=True):
        assert_same_batch(mapped, read)
    assert_same_batch(samplers[0].all(), next(samplers[1].chunks(4000)))


def test_a_table_that_fits_is_mapped_and_one_that_does_not_is_streamed(file: MemoryMappedTransitions) -> None:
    def opened(memory_bytes: int):
        return open_transitions(file, PREPROCESSING, memory_bytes=memory_bytes, seed=0)

    assert isinstance(opened(file.num_bytes), Transitions)
    assert isinstance(opened(file.num_bytes - 1), StreamedTransitions)
    with pytest.raises(
        ConfigError, match=r"too little to shuffle 4,000 transitions, .*\n.*loading.memory_gib"
    ) as error:
        opened(1000)
    times = float(re.findall(r"to ([\d.]+) times", str(error.value).replace(",", ""))[0])
    assert isinstance(opened(int(1000 * times)), Transitions | StreamedTransitions)


def test_a_truncated_or_foreign_file_gives_one_message(table: EpisodeTable, tmp_path: Path) -> None:
    file = row_file(table, tmp_path)
    data = file.path.read_bytes()
    sampler = streamed(file)
    file.read(0, 1)
    file.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"ends before its last row\n.*made again"):
        drawn(sampler, 10, 1)
    with pytest.raises(DataError, match="not a readable row file"):
        MemoryMappedTransitions.open(tmp_path / "rows")
    np.save(tmp_path / "rows" / ROWS, np.zeros((5, 2), np.float32))
    with pytest.raises(DataError, match=r"holds rows of shape \(5, 2\)"):
        MemoryMappedTransitions.open(tmp_path / "rows")


@pytest.mark.slow
def test_streaming_stays_within_its_memory(tmp_path: Path) -> None:
    """Run in a separate process, with a table of 48 MB and a limit of 24 MB."""
    row_file(make_table((300_000,) * 4), tmp_path)
    code = f"""
import numpy as np, torch
from pathlib import Path
from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions
from v2a_ray.data.loading.sampler import Preprocessing
from v2a_ray.data.loading.streaming import open_transitions
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
generator = torch.Generator().manual_seed(0)
torch.randint(9, (256,), generator=generator)
file = MemoryMappedTransitions.open(Path({str(tmp_path / "rows")!r}))
before = resident()
plain = Preprocessing(np.zeros({OBSERVATION_DIM}, np.float32), np.ones({OBSERVATION_DIM}, np.float32), 1.0)
sampler = open_transitions(file, plain, memory_bytes=file.num_bytes // 2, seed=0)
most = 0
for _ in range(3000):
    sampler.sample(256, generator)
    most = max(most, resident())
print(file.num_bytes // 2, most - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowance, used = map(int, done.stdout.split())
    assert 23e6 < allowance < 25e6
    assert 0.3 * allowance < used <= allowance


def test_collecting_a_stream_waits_for_no_thread(
    file: MemoryMappedTransitions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any allocation can collect garbage, also in a thread that holds the lock that the reader needs to end."""
    others = threading.enumerate()
    sampler = streamed(file)
    drawn(sampler, 10, 3)
    # Only the reader: libraries of other tests may start threads at any time.
    started = [thread for thread in threading.enumerate() if thread not in others]
    readers = [thread for thread in started if thread.name.startswith("v2a-read-ahead")]
    waited_for: list[threading.Thread] = []
    join = threading.Thread.join

    def noted_join(thread: threading.Thread, timeout: float | None = None) -> None:
        waited_for.append(thread)
        join(thread, timeout)

    deadline = time.monotonic() + 30
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", noted_join)
        del sampler
        # The reader holds the stream until the current block is read.
        while any(thread.is_alive() for thread in readers) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
    assert readers and not waited_for
    assert not any(thread.is_alive() for thread in readers)
