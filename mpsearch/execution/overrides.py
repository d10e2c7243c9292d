"""One layer in one format: what its nodes compute instead of the float operator."""

from collections.abc import Mapping
from typing import Any, Final

from jaxtyping import Float
from torch import Tensor, fx

from mpsearch.core.fitting import takes
from mpsearch.core.formats import Format, Granularity
from mpsearch.core.graph import Layer, Op
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.errors import FormatError, MeasurementError
from mpsearch.execution.inputs import rounded_input
from mpsearch.execution.interpreter import Override
from mpsearch.execution.products import product_override, quantisers_of
from mpsearch.execution.smoothed import stored_weight
from mpsearch.quant.fake_torch import fake_quantise_weight
from mpsearch.tracing.operators import LayerOperator, layer_operator
from mpsearch.tracing.traced_model import TracedModel
from mpsearch.tracing.weight_layout import as_in_model, outputs_first

_FULL_BITS: Final = 32
_NO_QUANTIZERS: Final[Mapping[str, ActivationQuantizer]] = {}


def layer_override(
    traced: TracedModel,
    layer: str,
    *,
    number: Format,
    quantizers: Mapping[str, ActivationQuantizer] = _NO_QUANTIZERS,
    dynamic_group: int | None = None,
) -> dict[str, Override]:
    """Return, for each node that runs the layer, how to compute it in the format.

    The weight is quantised once, at the first call. fp32 changes nothing and gives {}.

    Args:
        traced: The model.
        layer: A layer's name.
        number: The format; see `takes`.
        quantizers: Of inputs by layer, where the format has static integer activations; a
            product of two activations has a second one, see `second_input`.
        dynamic_group: Inputs per scale where the runtime quantises the input of weight-only
            linear layers on the fly (`dynamic_group_of`); None where it does not.

    Raises:
        FormatError: The layer cannot take the format.
        MeasurementError: The format needs a quantiser and there is none.
    """
    found = traced.graph.layers[traced.graph.index(layer)]
    if not takes(found, number):
        raise FormatError(
            f"Layer {layer!r} ({found.op}, weight {found.weight_shape}) cannot take the format "
            f"{number.name!r}. Expected formats of weights for embeddings, of inputs for products, "
            "and groups that divide the inputs of a linear layer. Choose another format for it."
        )
    if number.activation is None and number.weight.bits == _FULL_BITS:
        return {}
    nodes = {node.name: node for node in traced.module.graph.nodes}
    if found.op is Op.PRODUCT:
        own = quantisers_of(layer, quantizers)
        return {
            name: product_override(nodes[name], layer=layer, number=number, quantizers=own)
            for name in traced.nodes[layer]
        }
    quantizer = quantizers.get(layer)
    if number.is_static and quantizer is None:
        raise MeasurementError(
            f"Layer {layer!r} has no quantiser of its input, which format {number.name!r} needs. "
            "Expected one from `execution.observe_ranges`. Observe its range first."
        )
    store = _Stored(traced, layer=found, number=number, quantizer=quantizer)
    overrides: dict[str, Override] = {}
    for name in traced.nodes[layer]:
        operator = layer_operator(nodes[name])
        assert operator is not None
        overrides[name] = _override(
            nodes[name],
            operator=operator,
            store=store,
            dynamic_group=dynamic_group,
        )
    return overrides


def with_weight(node: fx.Node, weight: Tensor) -> Override:
    """Return the operator of a layer's node with another weight, in the model's orientation."""
    operator = layer_operator(node)
    target: Any = node.target
    assert operator is not None

    def compute(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - an operator's arguments
        changed = list(args)
        changed[operator.weight] = weight
        result = target(*changed, **kwargs)
        assert isinstance(result, Tensor)
        return result

    return compute


class _Stored:
    """The weight as the format holds it, in the layout of the operator, made once for each."""

    def __init__(
        self,
        traced: TracedModel,
        *,
        layer: Layer,
        number: Format,
        quantizer: ActivationQuantizer | None,
    ) -> None:
        self.number = number
        self.quantizer = quantizer
        self.layer = layer
        self._traced = traced
        self._made: dict[LayerOperator | None, Tensor] = {}

    def weight(self, node: fx.Node) -> Float[Tensor, "..."]:
        operator = layer_operator(node)
        if operator not in self._made:
            turned = outputs_first(node, self._traced.weight(self.layer.name))
            stored = stored_weight(
                turned, self.number, quantizer=self.quantizer, name=self.layer.name
            )
            self._made[operator] = as_in_model(node, stored)
        return self._made[operator]

    def input(self, values: Tensor, *, dynamic_group: int | None) -> Tensor:
        if self.layer.op is Op.EMBEDDING:  # row numbers
            return values
        return rounded_input(
            values,
            self.number,
            op=self.layer.op,
            quantizer=self.quantizer,
            dynamic_group=dynamic_group,
        )


def _override(
    node: fx.Node,
    *,
    operator: LayerOperator,
    store: _Stored,
    dynamic_group: int | None,
) -> Override:
    target: Any = node.target

    def looked_up(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - an operator's arguments
        # Rows have scales of their own, so only those that are read need to be rounded.
        rows = target(*args, **kwargs)
        number = store.number.weight
        stored = fake_quantise_weight(rows.flatten(end_dim=-2), number, name=store.layer.name)
        return stored.view_as(rows)

    def compute(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - an operator's arguments
        changed = list(args)
        changed[operator.weight] = store.weight(node)
        changed[operator.input] = store.input(args[operator.input], dynamic_group=dynamic_group)
        result = target(*changed, **kwargs)
        assert isinstance(result, Tensor)
        return result

    is_by_row = store.number.weight.granularity is not Granularity.TENSOR
    return looked_up if store.layer.op is Op.EMBEDDING and is_by_row else compute
