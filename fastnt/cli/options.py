"""What several commands read in the same way."""

from collections.abc import Collection
from typing import Annotated

import typer

from fastnt.errors import UserError

TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Call the module:factory that files name: only for files whose maker you trust.",
    ),
]


def assignments(texts: list[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Read the ``KEY=VALUE`` texts of ``--set``.

    Raises:
        UserError: a text has another form, or a key comes twice or is ``taken`` by another option.
    """
    values: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals:
            raise UserError(f"--set {text} is not KEY=VALUE, such as --set lr_decay=0.9")
        if key in taken or key in values:
            raise UserError(f"{key} is given twice, once by --set {text}; leave one out")
        values[key] = value.strip()
    return values
