"""JSON objects with a SHA-256 over their contents, which shows damage."""

import hashlib
import json
from typing import Any

HASH = "sha256"


def seal(value: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return ``value`` with its hash, which also covers ``before``, the hash of the object before it."""
    text = before + json.dumps(value)
    return {**value, HASH: hashlib.sha256(text.encode()).hexdigest()}


def unseal(sealed: Any, before: str = "") -> dict[str, Any]:
    """Verify what ``seal`` returned, and return the value without the hash.

    Raises:
        ValueError: it is no object, has no hash, or has changed since it was sealed.
    """
    if not isinstance(sealed, dict) or HASH not in sealed:
        raise ValueError("it has no SHA-256")
    value = {key: element for key, element in sealed.items() if key != HASH}
    if seal(value, before)[HASH] != sealed[HASH]:
        raise ValueError("its SHA-256 is another")
    return value
