"""The rules of recipes: each key's part, meaning and allowed values, and rules between keys."""

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from fastnt.errors import UserError
from fastnt.wording import counted

if TYPE_CHECKING:
    from fastnt.config import Recipe

Part = Literal["data", "teacher", "student", "noise"]
Rule = tuple[str, Callable[[Any], bool]]  # the allowed values in words, and whether one is allowed
FLOAT_MAX = 3.4e38  # float32's


@dataclass(frozen=True)
class Entry:
    """What belongs to a key of a recipe besides its type and default."""

    parts: tuple[Part, ...]
    meaning: str
    allowed: str  # the values, in words
    good: Callable[[Any], bool]
    # If the value only names content: the digest that replaces it in a key (see recipe_keys).
    digest: str = ""

    @property
    def text(self) -> str:
        """The meaning and the allowed values."""
        return (
            self.meaning if self.allowed == ANY[0] else f"{self.meaning}. Allowed: {self.allowed}"
        )


def entry(default: Any, parts: str, meaning: str, rule: Rule, digest: str = "") -> Any:
    """Return a field of the recipe: its default, and its :class:`Entry` as metadata."""
    known = Entry(tuple(parts.split()), meaning, *rule, digest)  # type: ignore[arg-type]
    return dataclasses.field(default=default, metadata={"entry": known})


def choice(words: Any) -> Rule:
    """Return the rule that allows the values of a ``Literal`` type."""
    choices = get_args(words)
    return f"one of {', '.join(choices)}", choices.__contains__


ANY = "text", lambda value: True
FLAG = "true or false", lambda value: True
_MOST = 2**31 - 1  # larger counts would overflow the sizes of tensors
COUNT = "at least 1 and below 2^31", lambda value: 1 <= value <= _MOST
COUNT_OR_0 = "at least 0 and below 2^31", lambda value: 0 <= value <= _MOST
COUNTS = COUNT_OR_0[0], lambda values: all(0 <= value <= _MOST for value in values)
PROBABILITY = "between 0 and 1", lambda value: 0 <= value <= 1
PROBABILITIES = "between 0 and 1", lambda values: all(0 <= value <= 1 for value in values)
POSITIVE = "a finite number above 0", lambda value: 0 < value < FLOAT_MAX
POSITIVE_OR_0 = "a finite number >= 0", lambda value: 0 <= value < FLOAT_MAX
DECAY = "above 0 and at most 1", lambda value: 0 < value <= 1
SEED = "between 0 and 2^63 - 1", lambda value: 0 <= value < 2**63
SEED_OR_NONE = SEED[0], lambda value: value is None or 0 <= value < 2**63
COUNT_OR_NONE = COUNT[0], lambda value: value is None or 1 <= value <= _MOST
SIGMA = (
    "a finite number >= 0, or a range LOW:HIGH",
    lambda value: 0 <= sigma_range(value)[0] <= sigma_range(value)[1] < FLOAT_MAX,
)


def sigma_range(sigma: float | tuple[float, float]) -> tuple[float, float]:
    """Return the lowest and highest sigma of a number or a pair."""
    return sigma if isinstance(sigma, tuple) else (sigma, sigma)


NOISE = ("alpha", "sigma", "noise", "perturb", "frozen", "teacher_alphas")
_STUDENT = ("student_network", "epochs", "lr", "lr_decay", "weight_decay", "objective", "penalty")
_KD = ("temperature", "label_weight")
_TEACHER = tuple(f"teacher_{key}" for key in ("epochs", "lr", "lr_decay", "seed", "batch_size"))


def idle_values(recipe: "Recipe", typed: Collection[str], only: str | None = None) -> str:
    """Say which values of the recipe were typed and change nothing; empty if there is none.

    Args:
        recipe: the recipe with the typed values.
        typed: the keys that the user typed in this call.
        only: the one network that is trained, if not all are.
    """
    labels, given = recipe.objective == "labels", len(recipe.teachers)
    reasons = (
        (only == "teacher", (*NOISE, *_STUDENT, *_KD), "only the teacher is trained"),
        (only == "clean", NOISE, "only the clean student is trained"),
        (labels, NOISE, "students that learn from labels (objective=labels) see no noise"),
        (len(recipe.teacher_alphas) > 0, ("alpha",), "teacher_alphas stands for it"),
        (recipe.objective != "kd", _KD, f"objective is {recipe.objective}, not kd"),
        (given > 0, _TEACHER, "no teacher is trained"),
        (given < 2, ("combine",), "there is one teacher"),
    )
    sentences: list[str] = []
    said: set[str] = set()
    for holds, keys, why in reasons:
        idle = [key for key in keys if holds and key in typed and key not in said]
        said.update(idle)
        if idle:
            changes = "changes" if len(idle) == 1 else "change"
            sentences.append(f"{' and '.join(idle)} {changes} nothing here: {why}")
    return "; ".join(sentences)


def check_together(recipe: "Recipe") -> None:
    """Refuse values that are allowed alone but not together.

    Raises:
        UserError: the message names the values.
    """
    if recipe.validation and recipe.validation_per_class:
        raise UserError(
            "validation and validation_per_class are both set; set validation=0 or "
            "validation_per_class= (empty)"
        )
    if recipe.objective != "noisy_l2" and (recipe.penalty or recipe.perturb == "student"):
        raise UserError(
            f"penalty and perturb=student go with objective=noisy_l2, not {recipe.objective}; "
            "leave them out"
        )
    alphas, teachers = len(recipe.teacher_alphas), len(recipe.teachers)
    if not alphas:
        return
    if teachers < 2:
        raise UserError(
            "teacher_alphas gives each of several teachers its own noise, but there is one "
            "teacher; give more with --teacher, or set alpha instead"
        )
    if alphas != teachers:
        raise UserError(
            f"teacher_alphas has {counted(alphas, 'value')} for {teachers} teachers; give one a teacher"
        )
    if recipe.perturb != "teacher" or recipe.combine != "mean":
        # Noise may change a logit's sign; logits of different signs have no geometric mean.
        raise UserError(
            "teacher_alphas puts noise on each teacher before their mean: it goes with "
            "perturb=teacher and combine=mean only; set these, or alpha instead"
        )
