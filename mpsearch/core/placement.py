"""Where activations are quantised: at the inputs of layers alone, or at residual additions too.

A residual addition belongs to the layer that feeds it last, into whose kernel runtimes take
the sum. It is quantised where that layer has a static format. Its addends have quantisers of
their own, under keys that no layer has.
"""

from collections.abc import Mapping
from typing import Final

from mpsearch.core.formats import format_named
from mpsearch.core.plan import ActivationQuantizer

LAYER_INPUTS: Final = "layer_inputs"
RESIDUAL_ADDS: Final = "residual_adds"
PLACEMENTS: Final = (LAYER_INPUTS, RESIDUAL_ADDS)

# In the metadata of an Add node of a base file: the addition's name, and which of the node's
# inputs comes from the layer that it belongs to.
ADDITION_KEY: Final = "mpsearch.addition"
OWN_SLOT_KEY: Final = "mpsearch.addition.own"

_SUFFIXES: Final = (":addend own", ":addend other")


def addend_keys(addition: str) -> tuple[str, str]:
    """Return under which keys of `Plan.quantizers` the addends of an addition have theirs.

    First that of the layer which the addition belongs to.

    Example:
        >>> addend_keys("block.conv2")
        ('block.conv2:addend own', 'block.conv2:addend other')
    """
    own, other = _SUFFIXES
    return addition + own, addition + other


def is_addend(key: str) -> bool:
    """Return whether a key of `Plan.quantizers` is that of an addend."""
    return key.endswith(_SUFFIXES)


def additions_with(quantizers: Mapping[str, ActivationQuantizer]) -> tuple[str, ...]:
    """Return the additions of which at least one addend has a quantiser, in their order."""
    found = (key.removesuffix(end) for key in quantizers for end in _SUFFIXES if key.endswith(end))
    return tuple(dict.fromkeys(found))


def quantised_additions(
    assignment: Mapping[str, str], *, additions: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the additions that a plan quantises; `additions` maps each to its layer.

    Example:
        >>> quantised_additions({"a": "w8a8", "b": "fp32"}, additions={"a": "a", "b": "b"})
        ('a',)
    """
    return tuple(
        addition
        for addition, layer in additions.items()
        if format_named(assignment[layer]).is_static
    )


def addend_quantizers(
    quantizers: Mapping[str, ActivationQuantizer],
    *,
    assignment: Mapping[str, str],
    additions: Mapping[str, str],
) -> dict[str, ActivationQuantizer]:
    """Return the quantisers of addends that a plan needs, out of those of all."""
    return {
        key: quantizers[key]
        for addition in quantised_additions(assignment, additions=additions)
        for key in addend_keys(addition)
    }


def ground_told(base: str, placement: str) -> str:
    """Return what a plan stands on, for a sentence.

    Example:
        >>> ground_told("bf16", "residual_adds")
        'base bf16 with quantised additions'
    """
    return f"base {base}" + (" with quantised additions" if placement == RESIDUAL_ADDS else "")
