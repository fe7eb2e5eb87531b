"""Reads the files that W&B writes offline, which its package only sends."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_FILE_HEADER, _HEADER, _BLOCK = 7, 7, 2**15
"""Bytes before the first record, before each piece of a record, and of a block, across which no piece goes."""
_FULL, _LAST = 1, 4


def read_offline(file: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and config of the run in a `.wandb` file."""
    code, config = 0, {}
    for record in _records(file.read_bytes()):
        if record.HasField("exit"):
            code = record.exit.exit_code
        for item in (*record.run.config.update, *record.config.update):
            config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return code, config


def _records(content: bytes) -> Iterator[Record]:
    """The file's records: LevelDB's log format, with pieces that are whole, first, middle or last."""
    at, whole = _FILE_HEADER, b""
    while at + _HEADER <= len(content):
        if _BLOCK - at % _BLOCK < _HEADER:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""
