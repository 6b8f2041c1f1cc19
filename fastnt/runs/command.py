"""The command line that resumes a run."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from fastnt.config import Recipe
from fastnt.recipe_files import named_code
from fastnt.trust import Trust


def resume_command(
    folder: Path, data_dir: Path | None, ranks: int = 1, flags: Sequence[str] = ()
) -> str:
    """Return the command line that resumes the run in ``folder`` with ``flags``."""
    words = ["fastnt", "train", "--resume", "--run", folder.name]
    if ranks > 1:
        words = ["torchrun", "--nproc-per-node", str(ranks), "-m", "--", *words]
    if folder.parent != Path("runs"):
        words += ["--runs-dir", str(folder.parent)]
    if data_dir is not None:
        words += ["--data-dir", str(data_dir)]
    words += flags
    return shlex.join(words)


def trust_again(recipe: Recipe, trust: Trust) -> list[str]:
    """Return the options with which a resumed run may call the user's own networks again.

    A name that the user typed, and that no file may name, has to be typed again.
    """
    named = named_code(recipe)
    if not (named or trust.code):
        return []
    typed = {key for key, name in named if not Trust(code=True).allows(name)}
    words = ["--trust-code"]
    for key in sorted(typed - {"teacher"}):
        words += ["--set", f"{key}={getattr(recipe, key)}"]
    if "teacher" in typed:
        words += [word for teacher in recipe.teachers for word in ("--teacher", teacher)]
    return words
