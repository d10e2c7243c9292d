"""Numbers in words that people read."""

_STEP = 1000.0
_PREFIXES = ("", "k", "M", "G")
_COUNTED = frozenset({"B", "bits", "BOPs"})
_MINUTE, _HOUR = 60.0, 3600.0
# Largest value shown in each time unit, the unit's length in nanoseconds, its name.
_TIMES = ((1e3, 1.0, "ns"), (1e6, 1e3, "us"), (1e9, 1e6, "ms"))


def duration(seconds: float) -> str:
    """Return a span of time, as exact as its length deserves.

    Example:
        >>> duration(0.4), duration(83.0), duration(7260.0)
        ('0.4 s', '1 min 23 s', '2 h 1 min')
    """
    if seconds < 9.95:  # noqa: PLR2004  # the last value that one decimal shows below 10
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float, unit: str = "B") -> str:
    """Return a number of bytes, or of another unit, with a decimal prefix.

    Example:
        >>> size(512.0), size(12_345_678.0), size(7.8e11, "BOPs")
        ('512 B', '12.3 MB', '780.0 GBOPs')
    """
    for prefix in _PREFIXES:
        if abs(count) < _STEP or prefix == _PREFIXES[-1]:
            break
        count /= _STEP
    return f"{count:.1f} {prefix}{unit}" if prefix else f"{count:.4g} {unit}"


def quantity(value: float | None, unit: str) -> str:
    """Return a value in its unit, bytes, bits, operations and nanoseconds with a fitting prefix.

    Example:
        >>> quantity(4.2e6, "ns"), quantity(2e6, "B"), quantity(0.98765, ""), quantity(None, "B")
        ('4.20 ms', '2.0 MB', '0.9877', '-')
    """
    if value is None:
        return "-"
    if unit in _COUNTED:
        return size(value, unit)
    if unit == "ns":
        return _time(value)
    return f"{value:.4g} {unit}".rstrip()


def _time(nanoseconds: float) -> str:
    for largest, length, name in _TIMES:
        if abs(nanoseconds) < largest:
            shown = nanoseconds / length
            return f"{shown:.3g} {name}" if length == 1 else f"{shown:.2f} {name}"
    return f"{nanoseconds / 1e9:.2f} s"
