"""Numbers and names as users read them: durations, counts and quoted names, the same everywhere."""

from collections.abc import Iterable


def duration(seconds: float) -> str:
    """Return a time in words: ``0.43 s``, ``42 s``, ``3 min 20 s``, ``2 min``, ``1 h 5 min``."""
    if seconds < 0.005:
        return "0 s"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 epoch``, ``1,200 images``, ``2 batches``."""
    plural = noun + ("es" if noun.endswith("tch") else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def signed(value: float) -> str:
    """Return a number with sign and two decimals, or more where those would be 0: ``-0.002``."""
    digits = 2
    while value and digits < 6 and not float(f"{value:.{digits}f}"):
        digits += 1
    text = f"{value:+.{digits}f}"
    return text if float(text) else "+0.00"


def listed(names: Iterable[str]) -> str:
    """Return names as text: ``a``, ``a and b``, ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def quoted(name: str) -> str:
    """Return a setting's name in quotes: it may have commas and spaces."""
    return f'"{name}"'


def short_count(count: int | None) -> str:
    """Return three digits and a unit: ``4.54k``, ``62.2k``, ``937k``, ``19.8M``; nothing for None."""
    if count is None:
        return ""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{float(f'{count / size:.3g}'):g}{unit}"
    return str(count)
