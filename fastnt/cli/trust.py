"""The option that lets files name code, which several subcommands have."""

from typing import Annotated

import typer

TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Call the module:factory that files name: only for files whose maker you trust.",
    ),
]
