"""Numbers as users read them: durations and counts, written in one way everywhere."""


def duration(seconds: float) -> str:
    """Return a time in words: ``0.43 s``, ``42 s``, ``3 min 20 s``, ``2 min``, ``1 h 5 min``."""
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
