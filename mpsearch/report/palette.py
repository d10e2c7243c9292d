"""One colour per format, told apart by lightness as well as by hue."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

from mpsearch.core.formats import Clipping, Granularity, TensorFormat, format_named
from mpsearch.errors import FormatError

# From cold and many bits to warm and few; (light theme, dark theme).
_COLOURS: Final = {
    "fp32": ("#64748b", "#94a3b8"),
    "bf16": ("#2f6fd6", "#6aa5f8"),
    "w8a8": ("#0b8f82", "#2cc7b5"),
    "w8": ("#6f9c1c", "#a3d143"),
    "w7": ("#8fa414", "#c3d83a"),
    "w6": ("#b0a00f", "#e0d13b"),
    "w5": ("#cf9207", "#f2bd35"),
    "w4g128": ("#e07b10", "#fb9f3c"),
    "w4": ("#d4512f", "#f77f5d"),
    "w3": ("#c02a63", "#f26a9c"),
    "w2": ("#7d2a92", "#c07ad2"),
}
_FALLBACK: Final = (("#475569", "#cbd5e1"), ("#0e7490", "#67e8f9"), ("#a16207", "#fde047"))


@final
@dataclass(frozen=True, kw_only=True)
class Swatch:
    """A format's name, its place in the palette and its colours."""

    name: str
    key: str
    light: str
    dark: str
    meaning: str


def swatches(names: Iterable[str]) -> dict[str, Swatch]:
    """Return a swatch per format name, in the order of the palette; keys are safe in CSS."""
    unique = list(dict.fromkeys(names))
    order = list(_COLOURS)
    unique.sort(key=lambda name: order.index(name) if name in order else len(order))
    found = {}
    for place, name in enumerate(unique):
        light, dark = _COLOURS.get(name, _FALLBACK[place % len(_FALLBACK)])
        found[name] = Swatch(
            name=name, key=f"f{place}", light=light, dark=dark, meaning=_meaning(name)
        )
    return found


def _meaning(name: str) -> str:
    try:
        format_ = format_named(name)
    except FormatError:
        return "a format of another version"
    if format_.is_floating:
        return {32: "single precision", 16: "bfloat16"}[format_.weight.bits]
    inputs = format_.activation
    suffix = f", inputs of {inputs.bits} bits" if inputs else ""
    if inputs and inputs.dynamic:
        suffix += " with a scale per token"
    return f"{_weight_meaning(format_.weight)}{suffix}"


def _weight_meaning(number: TensorFormat) -> str:
    if number.is_plain:
        return "weights as they are"
    if number.kind == "floating":
        return "weights as floats of 8 bits, one scale"
    scales = {
        Granularity.GROUP: f"one scale per {number.group_size} inputs",
        Granularity.TENSOR: "one scale",
    }.get(number.granularity, "one scale per output channel or row")
    zero = "" if number.symmetric else " and zero point"
    clipped = ", clipped to the least squared error" if number.clipping is Clipping.MSE else ""
    return f"weights of {number.bits} bits, {scales}{zero}{clipped}"
