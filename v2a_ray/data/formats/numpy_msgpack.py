"""NumPy arrays in msgpack, in the layout of the package msgpack-numpy, but without its ability to run code.

An array is the map {b"nd": True, b"type": dtype string, b"kind": b"", b"shape": …, b"data": bytes}, a NumPy number the
same with b"nd": False and no shape. msgpack-numpy unpickles b"data" when b"kind" is b"O"; here that is an error.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np


class PickledArrayError(ValueError):
    """An array of Python objects, which only unpickling could read."""


def pack(content: Any) -> bytes:
    """Numbers, text, lists, maps and numeric arrays as msgpack bytes."""
    packed: bytes = msgpack.packb(content, default=_encode)
    return packed


def unpack(packed: bytes) -> Any:
    """Inverse of `pack`. Raises PickledArrayError, or ValueError for invalid msgpack or another kind of array."""
    try:
        return msgpack.unpackb(packed, object_hook=_decode, strict_map_key=False)
    except PickledArrayError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, msgpack.UnpackException) as error:
        raise ValueError(f"no msgpack of numbers and arrays: {error}") from error


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        assert value.dtype.kind in "biuf", value.dtype
        data = np.ascontiguousarray(value).tobytes()
        return {b"nd": True, b"type": value.dtype.str, b"kind": b"", b"shape": value.shape, b"data": data}
    if isinstance(value, np.generic):
        return {b"nd": False, b"type": value.dtype.str, b"data": value.tobytes()}
    raise TypeError(f"{type(value).__name__} has no place in msgpack")


def _decode(value: dict[Any, Any]) -> Any:
    if b"nd" not in value:
        return value
    kind, described = value.get(b"kind", b""), value[b"type"]
    if kind == b"O" or not isinstance(described, (str, bytes)):
        raise PickledArrayError("an array of Python objects, which is a pickle")
    dtype = np.dtype(described if isinstance(described, str) else described.decode())
    if dtype.hasobject:
        raise PickledArrayError("an array of Python objects, which is a pickle")
    flat = np.frombuffer(value[b"data"], dtype=dtype)
    return flat.reshape(value[b"shape"]) if value[b"nd"] else flat[0]
