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
    """The command line that resumes the run in ``folder``, with ``flags`` given again."""
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
    """Options that a resumed run needs, so that networks of the user's own may be called again.

    What the user may type and a file may not name has to be typed again.
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
