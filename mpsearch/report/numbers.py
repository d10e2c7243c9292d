"""Numbers as people read them: three digits and a fitting unit."""

import math
import re
from typing import Final

ABSENT: Final = "\N{EN DASH}"
MINUS: Final = "\N{MINUS SIGN}"
TIMES: Final = "\N{MULTIPLICATION SIGN}"

_DIGITS: Final = 3
_DECIMAL: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_TIME: Final = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
_FRACTION: Final = re.compile(r"(\.\d*?)0+(?!\d)")
_SMALL, _LARGE = 1e-3, 1e6
_SUPERSCRIPT: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def amount(value: float, *, unit: str) -> str:
    """Return a value in its unit: bytes, nanoseconds, operations, shares or plain.

    Example:
        >>> amount(15.6e6, unit="B"), amount(1.234e6, unit="ns"), amount(0.9876, unit="share")
        ('15.6 MB', '1.23 ms', '98.8 %')
    """
    if not math.isfinite(value):
        return ABSENT
    if unit == "ns":
        return _scaled(value, steps=_TIME, unit="")
    if unit in ("B", "BOPs"):
        return _scaled(value, steps=_DECIMAL, unit=unit)
    if unit == "share":
        return share(value)
    return f"{plain(value)} {unit}".strip() if unit in ("bits", "dB") else plain(value)


def round_amount(value: float, *, unit: str) -> str:
    """Return a round value, such as that of a tick, without the zeros at its end.

    Example:
        >>> round_amount(15e6, unit="B"), round_amount(0.001, unit="")
        ('15 MB', '0.001')
    """
    text = _FRACTION.sub(lambda match: match[1].rstrip("."), amount(value, unit=unit))
    return text.removeprefix(f"1 {TIMES} ")


def share(value: float) -> str:
    """Return a share of 1 in percent; close to all of it, what is missing decides the digits.

    Example:
        >>> share(0.5), share(0.99962), share(0.0004)
        ('50.0 %', '99.962 %', '0.040 %')
    """
    if not math.isfinite(value):
        return ABSENT
    distance = min(abs(value), abs(1.0 - value)) * 100
    digits = 1 if distance >= 1 or distance == 0 else min(4, 1 - math.floor(math.log10(distance)))
    return f"{value * 100:.{digits}f} %"


def plain(value: float) -> str:
    """Return three significant digits, as a power of ten where that is shorter.

    Example:
        >>> plain(0.1234), plain(1234.5), plain(0.0)
        ('0.123', '1,234', '0')
        >>> plain(4.56e-5) == f"4.56 {TIMES} 10⁻⁵"
        True
    """
    if not math.isfinite(value):
        return ABSENT
    size = abs(value)
    if size == 0:
        return "0"
    if not _SMALL <= size < _LARGE:
        mantissa, exponent = f"{value:.{_DIGITS - 1}e}".split("e")
        return f"{mantissa} {TIMES} 10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    decimals = max(0, _DIGITS - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def seconds(value: float) -> str:
    """Return a duration.

    Example:
        >>> seconds(0.25), seconds(75.4)
        ('0.2 s', '1 min 15 s')
    """
    if value < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def _scaled(value: float, *, steps: tuple[tuple[float, str], ...], unit: str) -> str:
    size, prefix = next((step for step in steps if abs(value) >= step[0]), steps[-1])
    scaled = value / size
    whole = size == 1.0 and float(scaled).is_integer()
    decimals = (
        0 if scaled == 0 or whole else max(0, _DIGITS - 1 - math.floor(math.log10(abs(scaled))))
    )
    return f"{scaled:,.{decimals}f} {prefix}{unit}"
