"""Converts HDF5 to the checked episode table; the reference reads with h5py and writes with pyarrow without any check.

Both run in one process and write the same columns with the same compression; the reference writes a row per transition.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import h5py
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.record import Result, interleaved, record, seconds
from benchmarks.recordings import write_recording
from v2a_ray.data.formats.readers import read_table
from v2a_ray.data.mixing.mixture import relabel
from v2a_ray.data.table.folder import write_table
from v2a_ray.domains import parse_domain

TARGET = 1 / 2.5
"""At most 2.5 times the reference's time."""


def main() -> None:
    """Measure one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="50,000 transitions once, no recording")
    parser.add_argument("--num-transitions", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    num_transitions = 50_000 if arguments.quick else arguments.num_transitions
    domain = parse_domain("hopper/stock")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.hdf5"
        write_recording(path, num_transitions)

        def ours() -> None:
            table, findings = read_table(path, robot=domain.robot_spec)
            table = relabel(table, "source", domain, "medium")
            write_table(table, Path(folder) / "table", robot=domain.robot, findings=findings)

        def reference() -> None:
            with h5py.File(path) as file:
                columns = {key: _column(file[key][()]) for key in file}
            target = Path(folder) / "reference.parquet"
            pq.write_table(pa.table(columns), target, compression="zstd", use_dictionary=False)

        repetitions = 1 if arguments.quick else arguments.repetitions
        measured = interleaved(lambda: seconds(ours), lambda: seconds(reference), repetitions, less_is_better=True)
    name = f"converting {num_transitions:,} Hopper transitions to the checked table"
    record([Result(name, *measured[:2], "s", measured[2], TARGET)], write=not arguments.quick)


def _column(values: object) -> pa.Array:
    """(N,) or (N, features) as an Arrow column."""
    flat = pa.array(values.reshape(-1))  # type: ignore[attr-defined]
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
