"""A store in object storage: what a reader sees while the storage fails and writers die."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import v2a_ray.leases
import v2a_ray.mirror
import v2a_ray.objects
from tests.orchestration.tiny_sweeps import write_sweep
from tests.storage.s3_server import S3Server, answers_500, every, kills, loses_answers, throttles, times_out
from v2a_ray.checksums import folder_digests
from v2a_ray.engine.object_store import ObjectStore
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.engine.stores import open_store
from v2a_ray.errors import ConfigError, StorageError
from v2a_ray.experiments.estimate import estimate
from v2a_ray.experiments.sweep import load_sweep
from v2a_ray.objects import ObjectFolder, cache_root

WRITER = """
import sys, time
from v2a_ray.engine.stores import open_store
def make(output, work):
    work.mkdir(parents=True, exist_ok=True)
    (work / "checkpoint").write_text("step 7")
    time.sleep(float(sys.argv[2]))
    for number in range(3):
        (output / f"part-{number}").write_text(f"{number}" * int(sys.argv[3]))
print("started", flush=True)
open_store(sys.argv[1]).get_or_make("policy", "key", make, {})
"""
SMALL, LARGE = 1000, 200_000
"""Bytes of each part: three small ones lie in the artifact's record, three large ones in objects of their own."""


def fill(output: Path, work: Path, size: int = LARGE) -> None:
    for number in range(3):
        (output / f"part-{number}").write_text(f"{number}" * size)


def fill_little(output: Path, work: Path) -> None:
    fill(output, work, SMALL)


def other_node(address: str) -> ObjectStore:
    """A store with an empty cache, as on a node that has seen nothing."""
    shutil.rmtree(cache_root(), ignore_errors=True)
    store = open_store(address)
    assert isinstance(store, ObjectStore)
    return store


def parts(path: Path) -> list[str]:
    return [(path / f"part-{number}").read_text() for number in range(3)]


WHOLE = [f"{number}" * LARGE for number in range(3)]
WHOLE_LITTLE = [f"{number}" * SMALL for number in range(3)]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of killed processes end at once, and checkpoints are copied at once."""
    monkeypatch.setattr(v2a_ray.leases, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(v2a_ray.mirror, "BEAT_SECONDS", 0.1)


def test_an_estimate_of_many_artifacts_costs_one_listing(s3: S3Server, address: str, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, axes={"seed": list(range(30))}, settings={"store": address})
    sweep = load_sweep(path)
    store = open_store(address)
    for trial in sweep.trials[:7]:
        store.get_or_make("policy", trial.plan["policy"].key, fill, {})
    elsewhere = other_node(address)
    s3.requests.clear()
    found = estimate(sweep.trials, elsewhere, 2)
    assert [(each.num_artifacts, each.num_found) for each in found.stages if each.stage == "policy"] == [(30, 7)]
    assert len(s3.requests) == 1 and "list-type" in s3.requests[0][1], s3.requests


def test_an_artifact_is_the_same_on_every_node_and_as_on_a_disk(address: str, tmp_path: Path) -> None:
    made = open_store(address).get_or_make("policy", "key", fill, {"about": 1})
    on_disk = ArtifactStore(tmp_path / "disk").get_or_make("policy", "key", fill, {"about": 1})
    assert not made.cached
    elsewhere = other_node(address).require("policy", "key")
    assert elsewhere.cached and elsewhere.seconds == made.seconds
    mine, disk = folder_digests(elsewhere.path), folder_digests(on_disk.path)
    assert mine.keys() == disk.keys() and all(mine[f"part-{n}"] == disk[f"part-{n}"] for n in range(3))
    assert not any("work" in name or "leases" in name for name in ObjectFolder(address).names())


@pytest.mark.parametrize("fault", [answers_500, throttles, loses_answers])
def test_requests_that_fail_are_repeated(fault: Any, s3: S3Server, address: str) -> None:
    s3.fault = every(3, fault)
    open_store(address).get_or_make("policy", "key", fill, {})
    assert parts(other_node(address).require("policy", "key").path) == WHOLE
    s3.fault = lambda request: False
    records = [name for name in ObjectFolder(address).names() if name.startswith("records/")]
    assert records == ["records/policy/key.json"]


def test_a_storage_that_does_not_answer_in_time_is_asked_again(
    s3: S3Server, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"config_kwargs": {**v2a_ray.objects._OPTIONS["s3"]["config_kwargs"], "read_timeout": 1}}
    monkeypatch.setattr(v2a_ray.objects, "_OPTIONS", {"s3": options})
    v2a_ray.objects._filesystem.cache_clear()
    s3.fault = every(4, times_out)
    open_store(address).get_or_make("policy", "key", fill, {})
    s3.fault = lambda request: False
    assert parts(other_node(address).require("policy", "key").path) == WHOLE
    v2a_ray.objects._filesystem.cache_clear()


@pytest.mark.parametrize(
    ("size", "part", "before", "there"),
    [
        (LARGE, "part-1", True, False),
        pytest.param(LARGE, "part-1", False, False, marks=pytest.mark.slow),
        pytest.param(LARGE, "records/", True, False, marks=pytest.mark.slow),
        (LARGE, "records/", False, True),
        pytest.param(SMALL, "records/", True, False, marks=pytest.mark.slow),
        (SMALL, "records/", False, True),
    ],
)
def test_a_killed_writer_leaves_all_or_nothing(
    size: int, part: str, before: bool, there: bool, s3: S3Server, address: str, soon: None
) -> None:
    command = [sys.executable, "-c", WRITER, address, "0", str(size)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    s3.fault = kills(writer.pid, "PUT", part, before)
    assert writer.wait(120) == -9
    s3.fault = lambda request: False
    found = other_node(address).find("policy", "key")
    assert (found is not None) == there
    if found:
        assert parts(found.path) == [f"{number}" * size for number in range(3)]
    again = other_node(address).get_or_make("policy", "key", fill, {})
    assert again.cached == there and (there or parts(again.path) == WHOLE)


def test_another_node_goes_on_from_a_killed_writers_checkpoint(s3: S3Server, address: str, soon: None) -> None:
    command = [sys.executable, "-c", WRITER, address, "60", str(SMALL)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    checkpoint = ObjectFolder(f"{address}/work/policy/key")
    while not checkpoint.names():
        assert writer.poll() is None
        time.sleep(0.1)
    writer.kill()
    writer.wait()
    seen = []

    def go_on(output: Path, work: Path) -> None:
        seen.append((work / "checkpoint").read_text())
        fill(output, work)

    assert not other_node(address).get_or_make("policy", "key", go_on, {}).cached
    assert seen == ["step 7"] and checkpoint.names() == []
    assert ObjectFolder(f"{address}/leases").names() == []


def test_another_node_goes_on_at_once_from_the_checkpoint_of_work_that_was_given_up(address: str) -> None:
    def fail(output: Path, work: Path) -> None:
        work.mkdir(parents=True)
        (work / "checkpoint").write_text("step 7")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_store(address).get_or_make("policy", "key", fail, {})
    seen = []

    def go_on(output: Path, work: Path) -> None:
        seen.append((work / "checkpoint").read_text())
        fill(output, work)

    start = time.monotonic()
    other_node(address).get_or_make("policy", "key", go_on, {})
    assert seen == ["step 7"] and time.monotonic() - start < v2a_ray.leases.LEASE_SECONDS / 2
    assert not [name for name in ObjectFolder(address).names() if not name.startswith(("records/", "policy/"))]


def test_a_small_artifact_takes_few_requests(s3: S3Server, address: str) -> None:
    def requests() -> list[str]:
        made = [method for method, _ in s3.requests]
        s3.requests.clear()
        return made

    open_store(address).get_or_make("policy", "key", fill_little, {})
    assert sorted(requests()) == ["GET", "POST", "PUT", "PUT"]
    assert open_store(address).find("policy", "key")
    assert requests() == [], "another process of the node"
    elsewhere = other_node(address).require("policy", "key")
    assert parts(elsewhere.path) == WHOLE_LITTLE and requests() == ["GET"]
    assert open_store(address).find("policy", "none") is None
    assert requests() == ["GET"]


def test_many_artifacts_are_looked_for_with_one_listing(s3: S3Server, address: str) -> None:
    for number in range(3):
        open_store(address).get_or_make("policy", f"key-{number}", fill_little, {})
    wanted = [("policy", f"key-{number}") for number in range(40)]
    store = open_store(address)
    s3.requests.clear()
    with store.surveyed(wanted):
        found = [key for stage, key in wanted if store.find(stage, key)]
    assert found == ["key-0", "key-1", "key-2"]
    assert [method for method, path in s3.requests] == ["GET"] and "list-type" in s3.requests[0][1]
    other = ObjectStore(address)
    other.root = other.root.with_name("another-node")
    other.get_or_make("policy", "key-30", fill_little, {})
    assert store.find("policy", "key-30"), "what was not there may come after the block"


@pytest.mark.parametrize("count", [1, 40])
def test_a_survey_finds_that_the_storage_was_emptied(count: int, address: str) -> None:
    """A node's cache and notes must not make a command believe that other nodes can read what is gone."""
    wanted = [("policy", f"key-{number}") for number in range(count)]
    open_store(address).get_or_make("policy", "key-0", fill_little, {})
    ObjectFolder(address).remove(ObjectFolder(address).names())
    store = open_store(address)
    with store.surveyed(wanted):
        assert store.find("policy", "key-0") is None
    assert open_store(address).find("policy", "key-0") is None
    assert open_store(address).get_or_make("policy", "key-0", fill_little, {}).path.exists()
    assert parts(other_node(address).require("policy", "key-0").path) == WHOLE_LITTLE


def test_one_process_computes_and_the_others_wait_for_it(address: str) -> None:
    made, found = [], []

    def slowly(output: Path, work: Path) -> None:
        made.append(1)
        time.sleep(1.5)
        fill(output, work)

    threads = [
        threading.Thread(target=lambda: found.append(open_store(address).get_or_make("policy", "key", slowly, {})))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and sorted(artifact.cached for artifact in found) == [False, True, True]


def test_of_two_writers_the_first_to_finish_wins(address: str) -> None:
    """A lease can be lost by a process that goes on; its result must not be mixed with the other's."""

    def overtaken(output: Path, work: Path) -> None:
        lease = ObjectFolder(f"{address}/leases/policy/key")
        lease.remove(lease.names())
        other = ObjectStore(address)
        other.root = other.root.with_name("another-node")
        other.get_or_make("policy", "key", fill, {"writer": "first"})
        for number in range(3):
            (output / f"part-{number}").write_text("second")

    artifact = open_store(address).get_or_make("policy", "key", overtaken, {"writer": "second"})
    assert artifact.cached and parts(artifact.path) == WHOLE
    assert parts(other_node(address).require("policy", "key").path) == WHOLE


@pytest.mark.parametrize("harm", ["a byte", "a file", "the record"])
def test_what_is_damaged_in_the_storage_is_made_again(
    harm: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    open_store(address).get_or_make("policy", "key", fill, {})
    objects = ObjectFolder(address)
    name = next(name for name in objects.names() if name.endswith("part-1"))
    if harm == "a byte":
        objects.write(name, b"1" * (LARGE - 1) + b"x")
    elif harm == "a file":
        objects.remove([name])
    else:
        record = json.loads(objects.read("records/policy/key.json") or b"")
        objects.write("records/policy/key.json", json.dumps(record | {"seconds": 0}).encode())
    assert other_node(address).find("policy", "key") is None
    assert "damaged" in caplog.text
    again = other_node(address).get_or_make("policy", "key", fill, {})
    assert not again.cached and parts(other_node(address).require("policy", "key").path) == WHOLE


def test_a_storage_that_is_gone_is_one_message(s3: S3Server, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="object storage"):
        open_store("s3://no-such-bucket/prefix").prepare()
    monkeypatch.setattr(v2a_ray.objects, "_OPTIONS", {"s3": {"config_kwargs": {"retries": {"max_attempts": 1}}}})
    v2a_ray.objects._filesystem.cache_clear()
    s3.fault = lambda request: bool(request.fail(403, b"<Error><Code>AccessDenied</Code></Error>"))
    with pytest.raises(StorageError, match="object storage"):
        open_store(address).find("policy", "key")
    v2a_ray.objects._filesystem.cache_clear()


@pytest.mark.parametrize("name", ["ftp://host/store", "s3:/bucket", "s3://"])
def test_addresses_that_hold_no_store_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no object storage"):
        open_store(name)
