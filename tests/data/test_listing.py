"""The datasets under a folder, listed without reading observations."""

from pathlib import Path

import pytest

from tests.data.builders import make_table
from v2a_ray.data.formats.readers import export_table
from v2a_ray.data.inspection.listing import list_datasets


def test_counts_of_every_format_that_stores_them(tmp_path: Path) -> None:
    table = make_table((5, 7, 9), seed=0)
    for name, format_name in (("a.hdf5", "d4rl"), ("b.npz", "npz"), ("c", "minari"), ("d.parquet", "parquet")):
        export_table(table, tmp_path / name, format=format_name)
    (tmp_path / "e.npz").write_bytes(b"PK\x03\x04 and nothing else")
    listed = {each.name: each for each in list_datasets(tmp_path)}
    assert [each.format for each in listed.values()] == ["d4rl", "npz", "minari", "parquet", ""]
    assert listed.pop("e.npz").unreadable
    assert {(each.num_episodes, each.num_transitions) for each in listed.values()} == {(3, 21)}
    for name in ("a.hdf5", "b.npz", "d.parquet"):
        assert listed[name].mean_return == pytest.approx(table.returns.mean(), rel=1e-5)
