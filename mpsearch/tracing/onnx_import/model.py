"""An ONNX file to a module that can be traced, and to the base file of its plans."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

import onnx
from onnx import TensorProto, defs, inliner
from torch import Tensor

from mpsearch.errors import ModelError
from mpsearch.tracing.onnx_import.batch_norms import fold_batch_norms_
from mpsearch.tracing.onnx_import.checks import (
    check_names,
    check_operators,
    parsed,
    sort_nodes_,
    versions_of,
)
from mpsearch.tracing.onnx_import.graph import graph_of, names_read, value_types
from mpsearch.tracing.onnx_import.module import OnnxModule
from mpsearch.tracing.onnx_import.simplify import Simplifier, unknown_operators
from mpsearch.tracing.onnx_import.tensors import external_extent, read_tensor
from mpsearch.tracing.onnx_import.upgrade import upgraded
from mpsearch.tracing.onnx_import.wire import read_structure

_DEEPEST_FUNCTIONS: Final = 4  # functions of onnx that are made of others


@final
@dataclass(frozen=True, kw_only=True)
class OnnxInput:
    """An input of the file: its element type in ONNX, and sizes: a number, a name, or None.

    `sizes` is None as a whole where the file does not say how many there are.
    """

    name: str
    element_type: int
    sizes: tuple[int | str | None, ...] | None

    @property
    def is_setting(self) -> bool:
        """Return whether it is a single number, which has no samples: it is fixed for good."""
        return self.sizes == ()


@final
@dataclass(frozen=True, kw_only=True)
class OnnxModel:
    """A file read and simplified: a module to trace, and the structure of the base file.

    `structure` holds no weights: those are the module's, under `module.paths`. `types` are
    the element types that they had in the file. `is_current` tells that the structure is of
    an operator set that plans can be written in.
    """

    module: OnnxModule
    structure: onnx.ModelProto
    inputs: tuple[OnnxInput, ...]
    types: Mapping[str, int]
    is_current: bool
    path: Path | None = None
    tokenizer_file: Path | None = None

    @property
    def batch_size(self) -> int | None:
        """Return how many samples the file fixes for each run, None where it leaves that open."""
        first = {each.sizes[0] for each in self.inputs if each.sizes}
        fixed = [size for size in first if isinstance(size, int)]
        return fixed[0] if fixed else None

    @property
    def input_names(self) -> tuple[str, ...]:
        """Return the names of the inputs."""
        return tuple(each.name for each in self.inputs)


def load_onnx(path: Path, *, settings: Mapping[str, Tensor] | None = None) -> OnnxModel:
    """Read an ONNX file as a differentiable module of torch.

    Operator sets 7 to the newest; weights in the file or in plain files beside it. What is
    constant is computed now. `settings` fix inputs for good, such as a sampling rate.

    Raises:
        ModelError: The file is damaged, unsafe, or uses what cannot be read; the message names
            the node or weight.
    """
    content, extents = read_structure(path)
    proto = parsed(content, origin=str(path))
    versions_of(proto)
    check_names(proto.graph)
    sort_nodes_(proto.graph)
    types = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    constants = {}
    for tensor in proto.graph.initializer:
        extent = extents.get(tensor.name)
        if extent is None and tensor.data_location == TensorProto.EXTERNAL:
            extent = external_extent(tensor, folder=path.parent)
        constants[tensor.name] = read_tensor(tensor, extent=extent)
    found = from_structure(proto, constants=constants, types=types, settings=settings or {})
    if not found.inputs:
        raise ModelError(
            f"File {str(path)!r} has no inputs. Expected at least one. Export it with inputs."
        )
    tokenizer = path.parent / "tokenizer.json"
    return replace(found, path=path, tokenizer_file=tokenizer if tokenizer.exists() else None)


def from_structure(
    proto: onnx.ModelProto,
    *,
    constants: dict[str, Tensor],
    types: dict[str, int],
    settings: Mapping[str, Tensor],
) -> OnnxModel:
    """Return the model of a file whose weights have been read; `proto` is changed."""
    proto = inliner.inline_local_functions(proto) if proto.functions else proto
    proto, is_current = upgraded(_written_out(proto), weights=constants)
    versions = versions_of(proto)
    for tensor in proto.graph.initializer:  # the converter adds some of its own
        if tensor.name not in constants:
            constants[tensor.name] = read_tensor(tensor, extent=None)
            types[tensor.name] = tensor.data_type
    _fix_inputs_(proto.graph, settings, constants=constants)
    check_operators(unknown_operators(proto.graph, versions))
    Simplifier(constants, types=types, versions=versions).run_(proto.graph)
    fold_batch_norms_(proto.graph, constants)
    inputs = tuple(
        OnnxInput(name=name, element_type=kind, sizes=sizes)
        for name, (kind, sizes) in value_types(proto.graph).items()
    )
    used = {name for node in proto.graph.node for name in names_read(node)}
    used |= {output.name for output in proto.graph.output}
    kept = {name: value for name, value in constants.items() if name in used}
    del proto.graph.initializer[:]
    return OnnxModel(
        module=OnnxModule(graph_of(proto.graph, versions=versions, constants=kept, types=types)),
        structure=proto,
        inputs=inputs,
        types=types,
        is_current=is_current,
    )


def _written_out(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Replace operators that we do not know by what onnx says that they are made of."""
    versions = versions_of(proto)
    for _ in range(_DEEPEST_FUNCTIONS):
        unknown = unknown_operators(proto.graph, versions)
        known = [name for name in unknown if defs.has(name) and _has_body(name, versions[""])]
        if not known:
            break
        ids = [("", name) for name in known]
        try:
            proto = inliner.inline_selected_functions(proto, ids, inline_schema_functions=True)
        except RuntimeError:  # it fails on inputs that are left out; they are listed as unknown
            break
    return proto


def _has_body(name: str, version: int) -> bool:
    schema = defs.get_schema(name, version)
    # The stubs of onnx lack both names.
    return any(getattr(schema, key) for key in ("has_function", "has_context_dependent_function"))


def _fix_inputs_(
    graph: onnx.GraphProto, settings: Mapping[str, Tensor], *, constants: dict[str, Tensor]
) -> None:
    """Make constants of inputs that are given once for all."""
    names = [value.name for value in graph.input]
    unknown = sorted(set(settings) - set(names))
    if unknown:
        raise ModelError(
            f"The ONNX file has no input {unknown[0]!r}. Expected one of {names}. Check the name."
        )
    constants.update(settings)
    # Inputs that have a default among the weights are fixed at it.
    kept = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(kept)
