"""One run of a model as a list of operators: recorded once for a shape, then replayed.

Sizes are numbers then, what follows from constants alone is computed once, and nothing of the
importer runs any more.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import torch
import torch.fx.traceback as fx_traceback
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

from mpsearch.tracing.onnx_import.module import OUTPUT_KEY

# In the meta of a recorded node: the first output of the ONNX node that it is part of, and
# what nothing reads any more after it.
PART_OF: Final = "mpsearch.part_of"
_LAST: Final = "mpsearch.last_use_of"


@final
@dataclass(frozen=True, kw_only=True)
class Program:
    """Operators in order; `module` takes the inputs by position and returns a tuple."""

    module: fx.GraphModule
    outputs: tuple[str, ...]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, in the order of their names."""
        found: tuple[Tensor, ...] = self.module(*inputs)
        return found

    def steps(self, inputs: Sequence[Tensor]) -> Iterator["Step"]:
        """Yield the operators one by one; calling each runs it, so that it can be watched."""
        given = iter(inputs)
        values: dict[fx.Node, Any] = {}
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = getattr(self.module, node.target)
            elif node.op == "call_function":
                yield Step(node=node, values=values)
            for each in node.meta.get(_LAST, ()):
                values.pop(each, None)


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """One operator of a program, about to be run."""

    node: fx.Node
    values: dict[fx.Node, Any]

    @property
    def tensor(self) -> str:
        """Return the first output of the ONNX node that the operator is part of."""
        return str(self.node.meta[PART_OF])

    @property
    def operator(self) -> str:
        """Return the operator's name."""
        return str(self.node.target)

    def run(self) -> None:
        """Compute it and keep what it gives."""
        args, kwargs = self._read()
        target: Any = self.node.target
        self.values[self.node] = target(*args, **kwargs)

    def described(self) -> str:
        """Return the operator with the shapes and types of all it reads."""
        shapes = ",".join(
            f"{str(each.dtype).removeprefix('torch.')}{list(each.shape)}" for each in self.read()
        )
        return f"{self.operator}({shapes})"

    def read(self) -> list[Tensor]:
        """Return the tensors that it reads."""
        return [each for each in _flat(self._read()) if isinstance(each, Tensor)]

    def _read(self) -> tuple[Any, Any]:
        def value(node: fx.Node) -> Any:  # noqa: ANN401 - any node's value
            return self.values[node]

        return fx.map_arg(self.node.args, value), fx.map_arg(self.node.kwargs, value)


def record(
    compute: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]], inputs: Mapping[str, Tensor]
) -> Program:
    """Return the operators that one run calls on these inputs.

    Args:
        compute: The model; what it calls must depend on shapes, not on the numbers.
        inputs: Of the shapes that the program is for.
    """
    recorder = _Recorder()
    for name, value in inputs.items():
        recorder.give(name, value)
    with torch.no_grad(), _as_exporting(), recorder:
        results = compute(inputs)
    names = tuple(results)
    return Program(module=recorder.module([results[name] for name in names]), outputs=names)


@final
class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Writes down each operator that reads an input, or what follows from one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self._graph = fx.Graph()
        self._constants: dict[str, Tensor] = {}
        # By identity: what varies with the inputs, and constants that are read beside it.
        self._varying: dict[int, fx.Node] = {}
        self._fixed: dict[int, fx.Node] = {}
        self._alive: list[Tensor] = []  # so that no two tensors get one identity

    def give(self, name: str, value: Tensor) -> None:
        """Name an input."""
        self._keep(value, self._graph.placeholder(f"given_{name}"))

    def __torch_dispatch__(  # noqa: PLR0917 - as torch calls it
        self,
        func: Any,  # noqa: ANN401 - an operator of torch
        types: Any,  # noqa: ANN401 - as torch calls it
        args: Any = (),  # noqa: ANN401 - any operator's arguments
        kwargs: Any = None,  # noqa: ANN401 - the same
    ) -> Any:  # noqa: ANN401 - any operator's result
        """Run an operator, and write it down where it varies."""
        named = kwargs or {}
        result = func(*args, **named)
        read = [each for each in _flat((args, named)) if isinstance(each, Tensor)]
        if any(id(each) in self._varying for each in read):
            node = self._graph.call_function(func, self._symbolic(args), self._symbolic(named))
            self._write_down(node, result=result)
        return result

    def module(self, results: Sequence[Tensor]) -> fx.GraphModule:
        """Return the recorded operators as a module that gives these tensors."""
        self._graph.output(self._symbolic(tuple(results)))
        self._graph.eliminate_dead_code(is_impure_node=_is_given)
        module = fx.GraphModule(self._constants, self._graph)
        seen: set[fx.Node] = set()
        for node in reversed(module.graph.nodes):
            last = [each for each in node.all_input_nodes if each not in seen]
            node.meta[_LAST] = last
            seen.update(last)
        return module

    def _write_down(self, node: fx.Node, *, result: Any) -> None:  # noqa: ANN401 - any operator's
        part_of = fx_traceback.get_current_meta().get("custom", {}).get(OUTPUT_KEY, "")
        node.meta[PART_OF] = part_of
        if isinstance(result, Tensor):
            self._keep(result, node)
            return
        for place, each in enumerate(result if isinstance(result, list | tuple) else ()):
            if isinstance(each, Tensor):
                part = self._graph.call_function(operator.getitem, (node, place))
                part.meta[PART_OF] = part_of
                self._keep(each, part)

    def _keep(self, value: Tensor, node: fx.Node) -> None:
        self._alive.append(value)
        self._varying[id(value)] = node

    def _symbolic(self, arguments: Any) -> Any:  # noqa: ANN401 - any operator's arguments
        if isinstance(arguments, Tensor):
            return self._varying.get(id(arguments)) or self._constant(arguments)
        if isinstance(arguments, list | tuple):
            return type(arguments)(self._symbolic(each) for each in arguments)
        if isinstance(arguments, dict):
            return {key: self._symbolic(value) for key, value in arguments.items()}
        return arguments

    def _constant(self, value: Tensor) -> fx.Node:
        if id(value) not in self._fixed:
            name = f"constant_{len(self._constants)}"
            self._constants[name] = value.detach()
            self._alive.append(value)
            self._fixed[id(value)] = self._graph.get_attr(name)
        return self._fixed[id(value)]


def _is_given(node: fx.Node) -> bool:
    """Keep inputs that nothing reads; every operator is written down for its result alone."""
    return node.op in ("placeholder", "output")


def _flat(arguments: Any) -> Iterator[Any]:  # noqa: ANN401 - any operator's arguments
    if isinstance(arguments, list | tuple):
        for each in arguments:
            yield from _flat(each)
    elif isinstance(arguments, dict):
        yield from _flat(list(arguments.values()))
    else:
        yield arguments


@contextmanager
def _as_exporting() -> Iterator[None]:
    """Make the importer refuse what depends on the numbers of the data, as an export does."""
    before = torch.compiler._is_exporting_flag  # noqa: SLF001 - torch has no public way
    torch.compiler._is_exporting_flag = True  # noqa: SLF001 - the same
    try:
        yield
    finally:
        torch.compiler._is_exporting_flag = before  # noqa: SLF001 - the same
