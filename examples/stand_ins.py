"""Stand-ins for packages that a library imports and that an example never calls."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar
from unittest.mock import MagicMock


@contextmanager
def standing_in(*names: str) -> Iterator[None]:
    """Within the block, these packages can be imported whether they are there or not.

    Whoever imports them in the block must not use them. Afterwards they are forgotten, so that nobody
    else takes them for what they stand for. A name with dots is there without being imported.
    """
    packages = tuple({name.partition(".")[0] for name in names})
    hidden = [name for name in sys.modules if name.partition(".")[0] in packages]
    before = {name: sys.modules.pop(name) for name in hidden}
    finder = _Finder(packages)
    sys.meta_path.insert(0, finder)
    try:
        for name in names:
            importlib.import_module(name)
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
            del sys.modules[name]
        sys.modules.update(before)


class _StandIn(ModuleType):
    __path__: ClassVar[list[str]] = []  # a package, whatever is asked of it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (MagicMock,), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in self._packages:
            return None
        return importlib.util.spec_from_loader(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""
