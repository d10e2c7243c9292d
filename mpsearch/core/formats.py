"""Number formats: what a weight and an activation are stored and computed as."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, final

from mpsearch.errors import FormatError


class Granularity(StrEnum):
    """How many numbers share one scale."""

    TENSOR = "tensor"
    CHANNEL = "channel"  # one output channel of a Linear or Conv, one row of an Embedding
    GROUP = "group"  # `group_size` neighbours along the input dimension of one output channel


@final
@dataclass(frozen=True, kw_only=True)
class TensorFormat:
    """How one tensor is written: `bits` per number, scales per `granularity`.

    A floating format of 32 bits is IEEE single, of 16 bits bfloat16. An integer format has
    2**bits codes; a symmetric one uses the 2**bits - 1 codes around zero and no zero point.
    A `dynamic` activation finds its scale at run time, a static one during calibration.
    """

    kind: Literal["floating", "integer"]
    bits: int
    granularity: Granularity = Granularity.TENSOR
    group_size: int | None = None
    symmetric: bool = True
    dynamic: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Format:
    """What a layer's weight is stored as and what its input is computed as.

    `activation` is None where the input stays in the base precision of the plan.
    """

    name: str
    weight: TensorFormat
    activation: TensorFormat | None = None

    @property
    def is_floating(self) -> bool:
        """Whether the format is a base precision, in which nothing is quantised to integers."""
        return self.weight.kind == "floating"


def _integer_weight(bits: int) -> TensorFormat:
    return TensorFormat(kind="integer", bits=bits, granularity=Granularity.CHANNEL)


_BASES = (
    Format(name="fp32", weight=TensorFormat(kind="floating", bits=32)),
    Format(
        name="bf16",
        weight=TensorFormat(kind="floating", bits=16),
        activation=TensorFormat(kind="floating", bits=16),
    ),
)
_QUANTISED = (
    Format(
        name="w8a8",
        weight=_integer_weight(8),
        activation=TensorFormat(kind="integer", bits=8, symmetric=False),
    ),
    *(Format(name=f"w{bits}", weight=_integer_weight(bits)) for bits in range(8, 1, -1)),
    Format(
        name="w4g128",
        weight=TensorFormat(kind="integer", bits=4, granularity=Granularity.GROUP, group_size=128),
    ),
)

FORMATS: dict[str, Format] = {format_.name: format_ for format_ in (*_BASES, *_QUANTISED)}
BASES: tuple[str, ...] = tuple(format_.name for format_ in _BASES)


def format_named(name: str) -> Format:
    """Return the format called `name`.

    Raises:
        FormatError: No format has this name.

    Example:
        >>> format_named("w4g128").weight.group_size
        128
    """
    if name not in FORMATS:
        raise FormatError(
            f"Format {name!r} is unknown. Expected one of {', '.join(FORMATS)}. "
            "Choose one of them, or register a new one in mpsearch/core/formats.py."
        )
    return FORMATS[name]
