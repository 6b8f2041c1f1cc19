"""Code that a file names is called only if the user typed its name in this call, or trusts the file.

Weights and recipes are data. Some of them name the code that makes their network, ``module:factory``,
and that name was chosen by whoever made the file. The user trusts files with ``--trust-code``, or in
Python with ``trust_code=True``. Even then the name must be that of something that makes networks.
"""

import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from fastnt.errors import UserError
from fastnt.factory import find, is_factory

# Functions of these modules do other things than make networks: they delete files or run programs.
_FORBIDDEN = {"fastnt", "torch", "functorch", "torchgen", "builtins", *sys.stdlib_module_names}


@dataclass(frozen=True)
class Trust:
    """Which ``module:factory`` in files may be imported and called."""

    code: bool = False  # every name in files may: ``--trust-code``
    typed: frozenset[str] = frozenset()  # the names that the user typed in this call

    @classmethod
    def of(cls, trust_code: bool, typed: Iterable[object]) -> "Trust":
        """Return the trust of a call in which the user typed these values, or lists of values."""
        values = [v for given in typed for v in (given if isinstance(given, list) else [given])]
        return cls(trust_code, frozenset(v for v in values if isinstance(v, str) and is_factory(v)))

    def allows(self, text: str) -> bool:
        """Tell whether a file may name ``module:factory``."""
        try:
            self.check(text, "it")
        except UserError:
            return False
        return True

    def check(self, text: str, file: object) -> None:
        """Refuse ``module:factory``, which ``file`` names, unless the user trusts it.

        Raises:
            UserError: it is not trusted; or it is trusted, but cannot be imported, or is neither a
                top-level function nor a class of networks of a module outside fastnt, torch and
                Python's standard library.
        """
        if text in self.typed:
            return
        module, _, attribute = text.partition(":")
        if not self.code:
            raise UserError(
                f"{file} names code: it would import {module} and call {attribute} ({text}); if you "
                "trust whoever made the file, allow it with --trust-code, in Python trust_code=True"
            )
        if _top(module) in _FORBIDDEN:
            raise _refusal(text, file, f"is in {_top(module)}")
        if "." in attribute:
            raise _refusal(text, file, "is not at its module's top level")
        named = find(text)
        if not (inspect.isfunction(named) or _makes_networks(named)):
            raise _refusal(text, file, "is neither a function nor a class of networks")
        if _top(named.__module__) in _FORBIDDEN:
            raise _refusal(text, file, f"comes from {_top(named.__module__)}")


NOTHING = Trust()  # files may name no code


def _makes_networks(named: Any) -> bool:
    return isinstance(named, type) and issubclass(named, nn.Module)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _refusal(text: str, file: object, why: str) -> UserError:
    return UserError(
        f"{file} names {text}, which {why}; a file may name a top-level function or nn.Module class "
        "of a module outside fastnt, torch and Python's own library: name such a one"
    )
