"""What several commands read in the same way."""

from fastnt.errors import UserError


def assignments(texts: list[str]) -> dict[str, str]:
    """Read the ``KEY=VALUE`` texts of ``--set``.

    Raises:
        UserError: a text has another form.
    """
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text} is not KEY=VALUE, such as --set lr_decay=0.9")
        values[key.strip()] = value.strip()
    return values
