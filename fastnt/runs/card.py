"""The model card of a run: README.md with the YAML head that the Hugging Face Hub reads."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

import fastnt
from fastnt.config import Recipe
from fastnt.data.sources import full_name
from fastnt.monitoring.progress import PHASES
from fastnt.recipe_files import named_code
from fastnt.statistics import wilson
from fastnt.training.teachers import teacher_names

_NAMES = {
    "teacher": "the teacher",
    "clean": "the student of the clean teacher",
    "noisy": "the student of the noisy teacher",
}
# What the Hub calls the data sets that it holds.
_ON_THE_HUB = {
    "mnist": "ylecun/mnist",
    "svhn": "ufldl-stanford/svhn",
    "cifar10": "uoft-cs/cifar10",
}


def model_card(
    summary: dict[str, Any],
    recipe: Recipe,
    environment: dict[str, Any],
    shape: tuple[int, int, int],
) -> str:
    """Return the card of a run's networks: data, errors with intervals, recipe, commit, licence.

    It names no path of this machine: whoever publishes the weights publishes it with them.

    Args:
        summary: of the run.
        recipe: of the run.
        environment: the run's environment.json.
        shape: of an image, (H, W, C).
    """
    trained = [phase for phase in PHASES if phase in summary]
    rows = "\n".join(_row(phase, summary[phase]) for phase in trained)
    data, shown = summary["dataset"], ", ".join(map(str, shape))
    data_name = full_name(data, official=summary["official"])
    classes = ", ".join(map(str, environment.get("classes", [])))
    commit = environment.get("commit") or "unknown"
    return f"""---
{_yaml(_head(summary, trained[-1]))}---

# Networks distilled on {data}

Trained with fastnt after *Deep Model Compression: Distilling Knowledge from Noisy Teachers*
(Sau & Balasubramanian, [arXiv 1610.09650](https://arxiv.org/abs/1610.09650)).

| network | file | parameters | multiplications | test error | 95 % interval | wrong | held-out error |
|---|---|---:|---:|---:|---:|---:|---:|
{rows}

The intervals are Wilson's, over test images; another seed gives another error.

## Use

A network takes raw uint8 images (N, {shown}) and gives logits (N, {len(environment.get("classes", []))}).

```python
import fastnt

network = fastnt.load_student({_arguments(trained[-1], recipe)})
logits = network(images)
```

## Data

{data_name}; the SHA-256 of its files is `{environment.get("source_sha256")}`.
Classes, in the order of the logits: {classes}.

## Recipe

Its `dataset` and `teacher` are names alone: give the paths of your own with `--dataset` and `--teacher`.

```toml
{_recipe(recipe)}```

Trained on {environment.get("date")} with fastnt {fastnt.__version__}, commit {commit}, torch
{environment.get("packages", {}).get("torch")}.

## Licence

Whoever publishes these weights chooses their licence, within what the data allow, and writes it into the
head of this card. fastnt is under Apache-2.0.
"""


def _arguments(phase: str, recipe: Recipe) -> str:
    """Return load_student's arguments for a network of the run: its file, and trust for its code."""
    name = teacher_names(recipe)[0] if phase == "teacher" else phase
    part = "teacher" if phase == "teacher" else "student"
    code = any(key.startswith(part) for key, _ in named_code(recipe))
    trust = ", trust_code=True" if code else ""
    return f'"{name}.safetensors"{trust}'


def _head(summary: dict[str, Any], network: str) -> dict[str, Any]:
    """The keys of the Hub's model cards; ``model-index`` has the accuracy of the last network."""
    data = summary["dataset"]
    known = _ON_THE_HUB.get(data)
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": data, "type": known or data, "split": "test"},
        "metrics": [{"type": "accuracy", "value": round(1 - summary[network]["test_error"], 6)}],
    }
    return {
        "license": "unknown",
        "library_name": "fastnt",
        "pipeline_tag": "image-classification",
        "tags": ["knowledge-distillation", "arxiv:1610.09650"],
        **({"datasets": [known]} if known else {}),
        "metrics": ["accuracy"],
        "model-index": [{"name": f"{data}-{network}", "results": [result]}],
    }


def _row(phase: str, found: dict[str, Any]) -> str:
    interval = wilson(found["test_wrong"], found["test_images"])
    cells = [
        _NAMES[phase],
        "several" if "combine" in found else f"`{phase}.safetensors`",
        f"{found['parameters']:,}",
        "" if found["multiplies"] is None else f"{found['multiplies']:,}",
        f"{100 * found['test_error']:.2f} %",
        f"{100 * interval.low:.2f} to {100 * interval.high:.2f}",
        f"{found['test_wrong']:,} of {found['test_images']:,}",
        f"{100 * found['held_out_error']:.2f} %",
    ]
    return f"| {' | '.join(cells)} |"


def _recipe(recipe: Recipe) -> str:
    """The recipe as TOML; of files it has the names, not the folders."""
    values = {key: value for key, value in asdict(recipe).items() if value is not None}
    values["dataset"] = recipe.dataset_name
    values["teacher"] = [Path(name).name for name in recipe.teachers]
    return tomli_w.dumps(values)


def _yaml(values: dict[str, Any]) -> str:
    """Write a line a key; JSON's values are YAML's too."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())
