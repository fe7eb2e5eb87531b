"""A short, seeded run of `benchmarks/fuzz_readers.py`."""

from benchmarks.fuzz_readers import FAILURES, MAX_RESIDENT, fuzz


def test_fuzzed_files_are_read_or_refused_with_one_message() -> None:
    results = list(fuzz(180, seed=1))
    assert len(results) == 180
    assert [result for result in results if result[2] in FAILURES] == []
    assert {result[2] for result in results} == {"table", "message"}
    assert max(result[4] for result in results) < MAX_RESIDENT
