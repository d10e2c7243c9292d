"""Number formats: what a weight and an activation are stored and computed as.

Names are systematic, and a plan keeps nothing but the name: `w4`, `w4g64` (groups of 64),
`w4t` (one scale per tensor), `w4a8` (8-bit inputs, ranges from calibration), `w4a8-token`
(8-bit inputs, a scale per token at run time), `w8a8-dynamic` (one range for all of the input,
at run time), `w4a16` (bfloat16 inputs), `a8` (the weight as it is), `fp8` (weight and input are
floats of 8 bits). Behind them stand `-asymmetric` and `-mse`, which are about the weight.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal, final

from mpsearch.errors import FormatError


class Granularity(StrEnum):
    """How many numbers share one scale."""

    TENSOR = "tensor"
    CHANNEL = "channel"  # one output channel of a Linear or Conv, one row of an Embedding
    GROUP = "group"  # `group_size` neighbours along the input dimension of one output channel
    TOKEN = "token"  # noqa: S105 - all features at one position of an activation, no secret


class Clipping(StrEnum):
    """Which range of a weight the codes cover."""

    MINMAX = "minmax"  # all of it
    MSE = "mse"  # the one with the least squared error


@final
@dataclass(frozen=True, kw_only=True)
class TensorFormat:
    """How one tensor is written: `bits` per number, scales per `granularity`.

    A floating format of 32 bits is IEEE single, of 16 bits bfloat16, of 8 bits E4M3 (largest
    number 448) times a scale. An integer format has
    2**bits codes; a symmetric one uses the 2**bits - 1 codes around zero and no zero point.
    A `dynamic` activation finds its scale at run time, a static one during calibration.
    `clipping` is of weights.
    """

    kind: Literal["floating", "integer"]
    bits: int
    granularity: Granularity = Granularity.TENSOR
    group_size: int | None = None
    symmetric: bool = True
    dynamic: bool = False
    clipping: Clipping = Clipping.MINMAX

    @property
    def is_plain(self) -> bool:
        """Whether it is a float that needs no scale."""
        return self.kind == "floating" and self.bits > _SCALED_BITS


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
        """Whether the format is a base precision, in which nothing has a scale."""
        activation = self.activation
        return self.weight.is_plain and (activation is None or activation.is_plain)

    @property
    def is_static(self) -> bool:
        """Whether the input has a quantiser that is found during calibration."""
        activation = self.activation
        return activation is not None and not (activation.is_plain or activation.dynamic)

    @property
    def is_of_inputs(self) -> bool:
        """Whether inputs become codes of ranges from calibration and weights stay: `a8`.

        Products of two activations take these formats, and no others but the bases.
        """
        activation = self.activation
        is_of_codes = activation is not None and activation.kind == "integer"
        return self.weight == _SINGLE and is_of_codes and self.is_static

    @property
    def layout(self) -> str:
        """The name of the format whose files and kernels it shares: clipping only moves scales.

        Example:
            >>> format_named("w4g128-mse").layout
            'w4g128'
        """
        return self.name.removesuffix(_MSE)


def _integer_weight(bits: int) -> TensorFormat:
    return TensorFormat(kind="integer", bits=bits, granularity=Granularity.CHANNEL)


_SCALED_BITS: Final = 8  # floats as narrow as this are multiplied by a scale
_MSE: Final = "-mse"
_SINGLE: Final = TensorFormat(kind="floating", bits=32)
_BFLOAT16: Final = TensorFormat(kind="floating", bits=16)
_STATIC: Final = TensorFormat(kind="integer", bits=8, symmetric=False)
_FLOAT8: Final = TensorFormat(kind="floating", bits=8)
_BASES = (
    Format(name="fp32", weight=_SINGLE),
    Format(name="bf16", weight=_BFLOAT16, activation=_BFLOAT16),
)
_QUANTISED = (
    Format(name="w8a8", weight=_integer_weight(8), activation=_STATIC),
    *(Format(name=f"w{bits}", weight=_integer_weight(bits)) for bits in range(8, 1, -1)),
    Format(
        name="w4g128",
        weight=TensorFormat(kind="integer", bits=4, granularity=Granularity.GROUP, group_size=128),
    ),
    Format(name="fp8", weight=_FLOAT8, activation=_FLOAT8),
)

FORMATS: dict[str, Format] = {format_.name: format_ for format_ in (*_BASES, *_QUANTISED)}
BASES: tuple[str, ...] = tuple(format_.name for format_ in _BASES)

_NAME: Final = re.compile(
    r"(?:w(?P<bits>[2-8])(?P<scales>t|g[1-9]\d{0,4})?)?"
    r"(?:a(?P<inputs>16|8(?!-token|-dynamic)|8(?P<whole>-dynamic)|[2-8](?P<token>-token)))?"
    r"(?P<asymmetric>-asymmetric)?(?P<mse>-mse)?"
)


def format_named(name: str) -> Format:
    """Return the format called `name`, one of FORMATS or composed as the module says.

    Raises:
        FormatError: No format has this name.

    Example:
        >>> format_named("w4g128").weight.group_size
        128
        >>> format_named("w3g64a8-token-mse").weight.clipping.value
        'mse'
    """
    found = FORMATS[name] if name in FORMATS else _composed(name)
    if found is None:
        raise FormatError(
            f"Format {name!r} is unknown. Expected one of {', '.join(FORMATS)}, or a name such as "
            "w4g64, w3t, w4a8, w4a16, w8a8-token, w4-mse or w4-asymmetric-mse. Correct it, or "
            "register a new one in mpsearch/core/formats.py."
        )
    return found


def parts_of(name: str) -> tuple[str, str]:
    """Return the names of the format's weight alone and of its input alone.

    Raises:
        FormatError: No format has this name.

    Example:
        >>> parts_of("w4a8-mse"), parts_of("w4"), parts_of("a8")
        (('w4-mse', 'a8'), ('w4', ''), ('', 'a8'))
    """
    format_named(name)
    match = _NAME.fullmatch(name)
    if match is None:  # a base, or one whose weight and input go together
        return name, ""
    inputs = f"a{match['inputs']}" if match["inputs"] else ""
    weight = name.replace(inputs, "", 1) if inputs else name
    return weight, inputs


@lru_cache(maxsize=1024)
def _composed(name: str) -> Format | None:
    match = _NAME.fullmatch(name)
    if match is None or not (match["bits"] or match["inputs"]):
        return None
    if match["bits"] is None:
        is_plain = not (match["asymmetric"] or match["mse"])
        return Format(name=name, weight=_SINGLE, activation=_input(match)) if is_plain else None
    weight = replace(
        _integer_weight(int(match["bits"])),
        symmetric=match["asymmetric"] is None,
        clipping=Clipping.MSE if match["mse"] else Clipping.MINMAX,
    )
    scales = match["scales"]
    if scales == "t":
        weight = replace(weight, granularity=Granularity.TENSOR)
    elif scales:
        weight = replace(weight, granularity=Granularity.GROUP, group_size=int(scales[1:]))
    return Format(name=name, weight=weight, activation=_input(match) if match["inputs"] else None)


def _input(match: re.Match[str]) -> TensorFormat:
    if match["whole"]:
        return replace(_STATIC, dynamic=True)
    if match["token"]:
        return TensorFormat(
            kind="integer",
            bits=int(match["inputs"].removesuffix(match["token"])),
            granularity=Granularity.TOKEN,
            dynamic=True,
        )
    return _STATIC if match["inputs"] == "8" else _BFLOAT16
