"""Tensors of an ONNX file to tensors of torch: small ones from the structure, others from disk."""

import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from mpsearch.errors import ModelError
from mpsearch.tracing.onnx_import.wire import Extent

TORCH_TYPES: Final[Mapping[int, torch.dtype]] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
    TensorProto.COMPLEX64: torch.complex64,
    TensorProto.COMPLEX128: torch.complex128,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    TensorProto.FLOAT8E8M0: torch.float8_e8m0fnu,
    # Whole numbers of 2 and 4 bits have no type of their own: 8 bits hold them.
    TensorProto.INT4: torch.int8,
    TensorProto.UINT4: torch.uint8,
    TensorProto.INT2: torch.int8,
    TensorProto.UINT2: torch.uint8,
}
_SUB_BYTE: Final = frozenset(
    {TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2}
)
# The element type of ONNX that a type of torch has by itself.
ONNX_TYPES: Final[Mapping[torch.dtype, int]] = {
    kind: number for number, kind in TORCH_TYPES.items() if number not in _SUB_BYTE
}
# What torch and NumPy do not both have: read as bytes and viewed.
_VIEWED: Final = frozenset(
    {
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2,
        torch.float8_e5m2fnuz,
        torch.float8_e8m0fnu,
    }
)
_MOST_DIMENSIONS: Final = 32


def external_extent(tensor: TensorProto, *, folder: Path) -> Extent:
    """Return where the bytes of a tensor lie that is stored beside the file.

    Only a plain file in the file's own folder is read: no link, no path that leaves it.

    Raises:
        ModelError: It lies elsewhere, is a link, is absent, or is shorter than it has to be.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or byte_count(tensor))
    except ValueError as error:
        raise _outside(
            tensor, location, fact="has an offset or length that is no number"
        ) from error
    path, size = _plain_file(tensor, location, folder=folder)
    if offset < 0 or length < 0 or offset + length > size:
        raise _outside(tensor, location, fact=f"has {size} bytes, too few")
    return Extent(path=path, offset=offset, length=length)


def _plain_file(tensor: TensorProto, location: str, *, folder: Path) -> tuple[Path, int]:
    """Return the path and size of a file in the folder that is no link of any kind."""
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise _outside(tensor, location, fact="leads out of the model's folder")
    path = folder
    try:
        for part in relative.parts:
            path /= part
            if path.is_symlink():
                raise _outside(tensor, location, fact="is a symbolic link")
        found = path.stat()
    except OSError as error:
        raise _outside(tensor, location, fact="is not there") from error
    if not stat.S_ISREG(found.st_mode):
        raise _outside(tensor, location, fact="is no plain file")
    if found.st_nlink > 1:
        raise _outside(tensor, location, fact="is a hard link, a second name of another file")
    return path, found.st_size


def byte_count(tensor: TensorProto) -> int:
    """Return how many bytes the numbers of a tensor take.

    Raises:
        ModelError: Its type is no type of numbers, or a size is negative.
    """
    kind = torch_type(tensor.data_type, name=tensor.name)
    if len(tensor.dims) > _MOST_DIMENSIONS or any(size < 0 for size in tensor.dims):
        raise ModelError(
            f"Weight {tensor.name!r} has the shape {tuple(tensor.dims)[:8]}. Expected at most "
            f"{_MOST_DIMENSIONS} sizes, none negative. Export the model again."
        )
    count: int = math.prod(tensor.dims)
    if tensor.data_type in _SUB_BYTE:
        bits = 4 if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4) else 2
        return -(-count * bits // 8)
    return count * kind.itemsize


def torch_type(data_type: int, *, name: str) -> torch.dtype:
    """Return the type of torch for an element type of ONNX.

    Raises:
        ModelError: Torch has none, as for strings.
    """
    if data_type in TORCH_TYPES:
        return TORCH_TYPES[data_type]
    known = {value: text for text, value in TensorProto.DataType.items()}
    raise ModelError(
        f"{name!r} holds numbers of type {known.get(data_type, data_type)}. Expected floating or "
        "whole numbers, or booleans. Take strings and the like out of the model."
    )


def read_tensor(tensor: TensorProto, *, extent: Extent | None) -> Tensor:
    """Return a tensor of the file, read from `extent` where it is not in the structure.

    Raises:
        ModelError: Its bytes are fewer or more than its shape asks for.
    """
    wanted = byte_count(tensor)
    if extent is not None:
        _check_length(tensor, found=extent.length, wanted=wanted)
        return _from_disk(tensor, extent)
    _check_length(tensor, found=_held(tensor, wanted=wanted), wanted=wanted)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError, OverflowError) as error:
        raise ModelError(
            f"Weight {tensor.name!r} cannot be read: {error}. Expected numbers that fit its shape "
            f"{tuple(tensor.dims)}. Export the model again."
        ) from error
    return from_array(array, data_type=tensor.data_type, name=tensor.name)


def from_array(array: np.ndarray, *, data_type: int, name: str) -> Tensor:
    """Return a tensor of the type that `data_type` of ONNX has in torch."""
    kind = torch_type(data_type, name=name)
    if data_type in _SUB_BYTE:
        return torch.from_numpy(np.array(array.astype(np.int8))).to(kind)
    if kind in _VIEWED:
        size = np.uint16 if kind is torch.bfloat16 else np.uint8
        plain = np.array(array, copy=True, order="C").view(size)
        return torch.from_numpy(plain).view(kind).reshape(array.shape)
    return torch.from_numpy(np.array(array, copy=True, order="C"))


def to_proto(value: Tensor, *, name: str, data_type: int) -> TensorProto:
    """Return a tensor of ONNX with the numbers of a tensor, in the type it had in the file."""
    kept = TensorProto(name=name, data_type=data_type, dims=list(value.shape))
    plain = value.detach().cpu().contiguous()
    if data_type in _SUB_BYTE:
        four = ml_dtypes.int4 if data_type == TensorProto.INT4 else ml_dtypes.uint4
        return numpy_helper.from_array(plain.numpy().astype(four), name)
    kept.raw_data = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    return kept


def _from_disk(tensor: TensorProto, extent: Extent) -> Tensor:
    array = np.empty(extent.length, dtype=np.uint8)
    with extent.path.open("rb") as file:
        file.seek(extent.offset)
        if file.readinto(array.data) != extent.length:
            raise _outside(tensor, extent.path.name, fact="became shorter while it was read")
    kind = torch_type(tensor.data_type, name=tensor.name)
    if tensor.data_type in _SUB_BYTE:
        packed = onnx.TensorProto()
        packed.CopyFrom(tensor)
        packed.raw_data = array.tobytes()
        unpacked = numpy_helper.to_array(packed)
        return from_array(unpacked, data_type=tensor.data_type, name=tensor.name)
    flat = torch.from_numpy(array)
    return (flat if kind is torch.uint8 else flat.view(kind)).reshape(tuple(tensor.dims))


def _held(tensor: TensorProto, *, wanted: int) -> int:
    """Return how many bytes of numbers the structure holds, in the fields it may hold them."""
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    count = math.prod(tensor.dims)
    held = max(
        len(tensor.float_data),
        len(tensor.int32_data),
        len(tensor.int64_data),
        len(tensor.double_data),
        len(tensor.uint64_data),
    )
    per_number = 2 if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128) else 1
    packed = -(-wanted // 1) if tensor.data_type in _SUB_BYTE else count * per_number
    return wanted if held in (packed, count) else held


def _check_length(tensor: TensorProto, *, found: int, wanted: int) -> None:
    if found != wanted:
        raise ModelError(
            f"Weight {tensor.name!r} has {found} bytes of numbers. Expected {wanted} for its shape "
            f"{tuple(tensor.dims)}. The file is damaged; export or download it again."
        )


def _outside(tensor: TensorProto, location: str, *, fact: str) -> ModelError:
    return ModelError(
        f"Weight {tensor.name!r} is stored in {location!r}, which {fact}. Expected a plain file "
        "beside the model. Put all files of the model into one folder, as copies."
    )
