"""A killed collection resumes: finished episodes are not collected again, and the table is bit-identical."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.data.builders import assert_same, make_table
from v2a_ray.data.collection.journal import EpisodeJournal
from v2a_ray.data.collection.rolling import collect_episodes
from v2a_ray.data.table.folder import read_table_folder
from v2a_ray.domains import parse_domain

COLLECT = ["data", "collect", "--domain", "hopper/stock", "--behavior", "random", "--num-transitions", "60000"]


@pytest.mark.slow
def test_a_killed_collection_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "v2a_ray.cli.main", *COLLECT, "--num-actors", "2", "-o", "table"]
    driver = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / ".table.collecting" / "random"
    try:
        deadline = time.monotonic() + 120
        while len(list(journal.glob("*.parquet"))) < 3:
            assert time.monotonic() < deadline and driver.poll() is None
            time.sleep(0.02)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert not (tmp_path / "table").exists()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    table = read_table_folder(tmp_path / "table")
    expected = collect_episodes(parse_domain("hopper/stock"), "random", range(table.num_episodes)).head(60000)
    assert_same(table, expected, labels=False)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_journal(tmp_path: Path) -> None:
    first, second = make_table((3, 4)), make_table((5,), seed=1)
    journal = EpisodeJournal(tmp_path / "journal", {"seed": 1})
    journal.add(2, second)
    journal.add(0, first)
    kept = EpisodeJournal(tmp_path / "journal", {"seed": 1}).load()
    assert list(kept) == [0, 2]
    assert_same(kept[0], first)
    assert_same(kept[2], second)
    (part,) = (tmp_path / "journal").glob("0000000000.*")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1  # changes a number in an episode; the file stays readable
    part.write_bytes(content)
    assert list(EpisodeJournal(tmp_path / "journal", {"seed": 1}).load()) == [2]
    request = tmp_path / "journal" / "request.json"
    request.write_text(request.read_text().replace("1", "2"))
    assert EpisodeJournal(tmp_path / "journal", {"seed": 2}).load() == {}


def test_a_journal_that_another_process_removed(tmp_path: Path) -> None:
    request = {"seed": 1}
    mine, other = (EpisodeJournal(tmp_path / "journal", request) for _ in range(2))
    other.add(0, make_table((3, 4)))
    shutil.rmtree(tmp_path / "journal")  # as the other process does when its artifact is complete
    mine.add(2, make_table((5,), seed=1))
    assert list(mine.load()) == [2]


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param([(0, 3)], marks=pytest.mark.slow),
        [(2, 3), (7, 1)],
        pytest.param([(0, 2), (2, 2), (6, 40)], marks=pytest.mark.slow),
    ],
)
def test_gaps_are_filled(kept, ray_cluster: None, tmp_path: Path) -> None:
    from v2a_ray.data.mixing.mixture import CollectionRequest
    from v2a_ray.orchestration.data.collect import collect

    domain = parse_domain("hopper")
    expected = collect_episodes(domain, "random", range(60), seed=4).head(600)
    journal = EpisodeJournal(Path(tmp_path), {})
    for begin, count in kept:
        # A label that no collector gives shows that the kept episodes are used, not collected again.
        part = collect_episodes(domain, "random", range(begin, begin + count), seed=4)
        journal.add(begin, part.replace(behavior=("kept",) * count))
    request = CollectionRequest(domain.name, domain.name, "random", 600, 4, 0.1)
    (table,) = collect([request], num_actors=2, journals=[journal])
    assert_same(table, expected.replace(behavior=table.behavior))
    numbers = {index for begin, count in kept for index in range(begin, begin + count)}
    assert table.behavior == tuple("kept" if i in numbers else "random" for i in range(table.num_episodes))
