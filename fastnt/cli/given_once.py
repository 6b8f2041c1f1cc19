"""Commands whose options may be given once, unless they collect several values."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand

from fastnt.errors import UserError


class GivenOnce(TyperCommand):
    """A command that refuses an option given twice: the first value would be dropped unseen."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line.

        Raises:
            UserError: an option that has one value comes twice; a switch without an opposite may.
        """
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for option, times in Counter(order).items():
            switch = getattr(option, "is_flag", False) and not option.secondary_opts
            if option.param_type_name == "option" and times > 1 and not (option.multiple or switch):
                names = "/".join([*option.opts, *option.secondary_opts])
                raise UserError(f"{names} is given twice; leave one out")
        return super().parse_args(ctx, args)
