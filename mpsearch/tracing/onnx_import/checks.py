"""What must hold of an ONNX file before anything of it runs."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import onnx
from onnx import defs

from mpsearch.errors import ModelError
from mpsearch.tracing.onnx_import.graph import (
    DEFAULT_DOMAIN,
    names_read,
    plain_domain,
    subgraphs,
)

_OLDEST_OPSET: Final = 7  # before, broadcasting had rules of its own
_MOST_NAMED: Final = 20


def parsed(content: bytes, *, origin: str) -> onnx.ModelProto:
    """Return the model that the bytes hold.

    Raises:
        ModelError: They are no ONNX model.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's own error type moves between its versions
        raise ModelError(
            f"File {origin!r} is no ONNX model: {error}. Expected one that is whole. Export or "
            "download it again."
        ) from error
    if not model.graph.node and not model.graph.output:
        raise ModelError(
            f"File {origin!r} holds no nodes and no outputs. Expected an ONNX model. Check that "
            "it is one."
        )
    return model


def versions_of(model: onnx.ModelProto) -> dict[str, int]:
    """Return the version of the operator set of each domain.

    Raises:
        ModelError: The default one is missing, or too old or too new.
    """
    found = {plain_domain(entry.domain): int(entry.version) for entry in model.opset_import}
    newest = defs.onnx_opset_version()
    version = found.get(DEFAULT_DOMAIN)
    if version is None or not _OLDEST_OPSET <= version <= newest:
        raise ModelError(
            f"The ONNX file uses operator set {version}. Expected {_OLDEST_OPSET} to {newest}. "
            "Export the model with one of these, or update the package onnx."
        )
    return found


def check_names(graph: onnx.GraphProto) -> None:
    """Check that each tensor has one producer and each name that is read exists.

    Raises:
        ModelError: A name is given twice, or read and never given; or a weight is sparse.
    """
    if graph.sparse_initializer:
        raise ModelError(
            f"Weight {graph.sparse_initializer[0].values.name!r} is stored as a sparse tensor. "
            "Expected dense ones. Export the model again."
        )
    _check_graph(graph, outer=frozenset())


def sort_nodes_(graph: onnx.GraphProto) -> None:
    """Bring the nodes into an order of execution, in place; those that have one keep it.

    Raises:
        ModelError: Nodes wait for each other in a circle.
    """
    producer = {name: place for place, node in enumerate(graph.node) for name in node.output}
    waits = [
        {producer[name] for name in names_read(node) if name in producer} for node in graph.node
    ]
    if all(max(before, default=-1) < place for place, before in enumerate(waits)):
        return
    readers: dict[int, list[int]] = {}
    for place, before in enumerate(waits):
        for each in before:
            readers.setdefault(each, []).append(place)
    missing = [len(before) for before in waits]
    ready = [place for place, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        place = heapq.heappop(ready)  # the earliest of the file: its order is kept where it can be
        order.append(place)
        for each in readers.get(place, ()):
            missing[each] -= 1
            if missing[each] == 0:
                heapq.heappush(ready, each)
    if len(order) < len(waits):
        raise _circle(graph.node, waits, left=sorted(set(range(len(waits))) - set(order)))
    nodes = [onnx.NodeProto.FromString(graph.node[place].SerializeToString()) for place in order]
    del graph.node[:]
    graph.node.extend(nodes)


def title_of(node: onnx.NodeProto) -> str:
    """Return what messages call a node: its name, else its first output."""
    return node.name or next((name for name in node.output if name), node.op_type)


def check_operators(unknown: Mapping[str, Sequence[str]]) -> None:
    """Refuse operators that are not known, all of them at once.

    Args:
        unknown: The titles of the nodes of each operator.

    Raises:
        ModelError: There is one.
    """
    if not unknown:
        return
    parts = []
    for name in sorted(unknown):
        titles = unknown[name]
        more = f" and {len(titles) - _MOST_NAMED} more" if len(titles) > _MOST_NAMED else ""
        parts.append(f"{name} ({', '.join(map(repr, titles[:_MOST_NAMED]))}{more})")
    raise ModelError(
        f"The ONNX file has {len(unknown)} operators that cannot be read: {'; '.join(parts)}. "
        "Expected standard operators on numbers. Replace them, or export the model without them."
    )


def _check_graph(graph: onnx.GraphProto, *, outer: frozenset[str]) -> None:
    initialisers = [tensor.name for tensor in graph.initializer]
    _refuse_twice(initialisers, kind="weights")
    inputs = [value.name for value in graph.input]
    _refuse_twice(inputs, kind="inputs")
    given = set(initialisers) | set(inputs)
    for node in graph.node:
        for name in node.output:
            if name and (name in given or name in outer):
                raise ModelError(
                    f"Node {title_of(node)!r} ({node.op_type}) gives the tensor {name!r}, which "
                    "something else gives too. Expected each name once. Export the model again."
                )
            given.add(name)
    _check_reads(graph, known=frozenset(outer | given | {""}))


def _check_reads(graph: onnx.GraphProto, *, known: frozenset[str]) -> None:
    for node in graph.node:
        absent = sorted(names_read(node) - known)
        if absent:
            raise ModelError(
                f"Node {title_of(node)!r} ({node.op_type}) reads {absent[0]!r}, which nothing "
                "gives. Expected an input, a weight or a node of that name. Export it again."
            )
        for inner in subgraphs(node):
            _check_graph(inner, outer=known)
    for output in graph.output:
        if output.name not in known:
            raise ModelError(
                f"Output {output.name!r} is given by no node. Expected one. Export the model again."
            )


def _refuse_twice(names: Iterable[str], *, kind: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ModelError(
                f"The ONNX file has two {kind} called {name!r}. Expected each name once. Export "
                "the model again."
            )
        seen.add(name)


def _circle(
    nodes: Sequence[onnx.NodeProto], waits: Sequence[set[int]], *, left: Sequence[int]
) -> ModelError:
    """Name the nodes of one circle: whoever follows what is waited for comes back."""
    open_ = set(left)
    path = [left[0]]
    while True:
        following = min(waits[path[-1]] & open_)
        if following in path:
            circle = path[path.index(following) :]
            break
        path.append(following)
    names = " <- ".join(repr(title_of(nodes[place])) for place in circle[:_MOST_NAMED])
    return ModelError(
        f"Nodes of the ONNX file wait for each other: {names} <- {title_of(nodes[circle[0]])!r}. "
        "Expected a graph without circles. Export the model again."
    )
