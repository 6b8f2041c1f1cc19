"""JSON that shows damage: an object with the SHA-256 of what it holds."""

import hashlib
import json
from typing import Any

HASH = "sha256"


def seal(value: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return ``value`` with its hash, which is also over the hash ``before`` in a file of several."""
    text = before + json.dumps(value)
    return {**value, HASH: hashlib.sha256(text.encode()).hexdigest()}


def unseal(sealed: Any, before: str = "") -> dict[str, Any]:
    """Return what ``seal`` was given.

    Raises:
        ValueError: it is no object, has no hash, or holds something else than when it was sealed.
    """
    if not isinstance(sealed, dict) or HASH not in sealed:
        raise ValueError("it has no SHA-256")
    value = {key: element for key, element in sealed.items() if key != HASH}
    if seal(value, before)[HASH] != sealed[HASH]:
        raise ValueError("its SHA-256 is another")
    return value
