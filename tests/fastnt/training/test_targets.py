"""Targets: stored or live, of one teacher or several, with the noise of each."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastnt.config import Recipe
from fastnt.data.prepare import prepare
from fastnt.data.preprocess import View
from fastnt.data.rows import Batch
from fastnt.errors import UserError
from fastnt.files import cache_dir
from fastnt.kernels.noisy_l2 import eager
from fastnt.loss import noisy_l2_value_and_grad, noisy_logits
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.training.compute import FLOAT32, Compute, Precision
from fastnt.training.ensemble import Ensemble, combine_logits, sign_agreement
from fastnt.training.logits import compute_logits, map_to_device
from fastnt.training.model import Model
from fastnt.training.objectives import noisy_l2_objective
from fastnt.training.step import TrainStep
from fastnt.training.targets import (
    Targets,
    Teaching,
    live_targets,
    make_teaching,
    stored_targets,
    student_targets,
)
from fastnt.training.training_data import TrainingData

CPU = torch.device("cpu")
NETWORK = "C3(S1P1)@4-MP2(S2)-FC16-FC10"
ZERO = torch.zeros((), dtype=torch.int64)


def _recipe(**values: Any) -> Recipe:
    return load_recipe("digits", None, {"train_samples": 96, "batch_size": 32, "seed": 5} | values)


def _data(recipe: Recipe) -> TrainingData:
    return TrainingData(prepare("digits"), recipe, Compute(CPU, loader="resident"))


def _teachers(data: TrainingData, count: int) -> list[Model]:
    torch.manual_seed(count)
    return [Model(NETWORK, data.fitted_preprocess(), 10) for _ in range(count)]


def _teaching(recipe: Recipe, count: int) -> tuple[Teaching, TrainingData, list[Model]]:
    several = tuple(f"{i}.safetensors" for i in range(count))
    recipe = replace(recipe, teacher=several if count > 1 else "")
    data = _data(recipe)
    teachers = _teachers(data, count)
    return make_teaching(teachers, data, Compute(CPU), Silent()), data, teachers


def _clean(teaching: Teaching) -> Targets:
    return teaching.combined("mean")


def _first(data: TrainingData, epoch: int = 0) -> Batch:
    loader = data.training_loader(data.recipe.batch_size, data.recipe.seed)
    return next(iter(loader.epoch(epoch)))


def _view(data: TrainingData, batch: Batch, epoch: int = 0) -> View | None:
    return data.training_views(data.recipe.seed)(batch, torch.tensor(epoch))


def _step(student: Model, targets: Targets, data: TrainingData, lr: float) -> TrainStep:
    objective = noisy_l2_objective(targets, data.recipe, alpha=0.0)
    views = data.training_views(data.recipe.seed)
    device = next(student.parameters()).device
    return TrainStep(student, objective, views, lr=lr, compute=Compute(device))


def _close(actual: Tensor, expected: Tensor) -> None:
    """Float32 sums of some hundred products of order 1."""
    torch.testing.assert_close(actual.double(), expected.double(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("values", [{}, {"mirror": True}], ids=str)
def test_a_live_teacher_without_crops_gives_the_stored_logits(values: Any) -> None:
    teaching, data, (teacher,) = _teaching(_recipe(**values), 1)
    exact = copy.deepcopy(teacher.network).double()
    live = live_targets(teacher, FLOAT32)
    for batch in data.training_loader(32, 5).epoch(0):
        stored = _clean(teaching)(batch, None, ZERO)
        pixels = teacher.preprocess(batch.images, data.list_view(batch))
        expected = exact(pixels.double())
        assert stored.dtype == torch.float32
        _close(stored, expected)
        _close(live(batch, _view(data, batch), ZERO), expected)


def test_crops_are_seen_by_teacher_and_student_alike() -> None:
    # The student is the teacher: on the same view nothing is left to learn, not even a bit of it.
    recipe = _recipe(crop=2, random_mirror=True, preprocess="pixel_mean")
    teaching, data, (teacher,) = _teaching(recipe, 1)
    table = stored_targets(compute_logits(teacher, data.ordered))
    for targets, same in ((_clean(teaching), True), (table, False)):
        student = copy.deepcopy(teacher)
        step = _step(student, targets, data, lr=1e-9)
        student.train()
        step.begin_epoch(3)
        step(_first(data, 3), len(_first(data, 3).labels))
        assert (step.loss.item() == 0) is same


def test_a_live_teacher_sees_the_crops_of_the_epoch() -> None:
    recipe = _recipe(crop=2)
    teaching, data, (teacher,) = _teaching(recipe, 1)
    batch = _first(data)
    views = [_view(data, batch, epoch) for epoch in (0, 1)]
    epochs = [_clean(teaching)(batch, view, ZERO) for view in views]
    for view, logits in zip(views, epochs, strict=True):
        assert view is not None
        expected = copy.deepcopy(teacher.network).double()(
            teacher.preprocess(batch.images, view).double()
        )
        _close(logits, expected)
    assert not torch.allclose(epochs[0], epochs[1])


def test_with_crops_no_table_is_made_and_the_held_out_images_are_whole() -> None:
    teaching, data, (teacher,) = _teaching(_recipe(crop=1), 1)
    assert not (cache_dir() / "logits").exists()
    images = torch.cat([batch.images for batch in data.validation.epoch(0)])
    _close(
        teaching.held_out("mean"),
        copy.deepcopy(teacher.network).double()(teacher.preprocess(images).double()),
    )


def test_a_live_teacher_has_no_dropout_and_no_gradient() -> None:
    recipe = _recipe(crop=1)
    data = _data(recipe)
    teacher = Model("FC16-D0.5-FC10", data.fitted_preprocess(), 10).train()
    targets = live_targets(teacher, Precision(torch.bfloat16))
    first, second = (targets(_first(data), _view(data, _first(data)), ZERO) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert first.dtype == torch.float32


@pytest.mark.parametrize("crop", [0, 1])
def test_several_teachers_teach_their_mean(crop: int) -> None:
    teaching, data, teachers = _teaching(_recipe(crop=crop), 3)
    batch = _first(data)
    pixels = teachers[0].preprocess(batch.images, _view(data, batch)).double()
    each = [copy.deepcopy(teacher.network).double()(pixels) for teacher in teachers]
    _close(_clean(teaching)(batch, _view(data, batch), ZERO), sum(each) / 3)
    images = torch.cat([batch.images for batch in data.validation.epoch(0)])
    with torch.no_grad():
        _close(Ensemble(teachers, "mean")(images), teaching.held_out("mean"))


def test_each_teacher_keeps_a_table_of_its_own() -> None:
    _teaching(_recipe(), 2)
    assert len(list((cache_dir() / "logits").glob("*.safetensors"))) == 2


def test_the_geometric_mean_keeps_signs_and_is_the_mean_where_they_differ() -> None:
    a = torch.tensor([2.0, -2.0, 2.0, 0.0, 0.0, 0.0, 1e-20])
    b = torch.tensor([8.0, -8.0, -8.0, 3.0, -3.0, 0.0, 1e-22])
    expected = torch.tensor([4.0, -4.0, -3.0, 0.0, 0.0, 0.0, 1e-21])
    torch.testing.assert_close(combine_logits([a, b], "geometric"), expected, rtol=1e-5, atol=0)
    assert sign_agreement([a, b]) == 6 / 7
    c = torch.tensor([4.0, -4.0])
    cubes = combine_logits([a[:2], b[:2], c], "geometric")
    torch.testing.assert_close(cubes, torch.tensor([4.0, -4.0]))


@pytest.mark.parametrize("crop", [0, 1])
@pytest.mark.parametrize(
    "values",
    [
        {"teacher_alphas": "0,0.5"},
        {"teacher_alphas": "0.5,0.8", "sigma": "0.1:0.9"},
        {"teacher_alphas": "0.5,0.5", "noise": "shared"},
        {"teacher_alphas": "0.5,1", "frozen": True},
    ],
    ids=str,
)
def test_each_teacher_has_its_own_noise(values: Any, crop: int) -> None:
    recipe = _recipe(crop=crop, teacher=["a", "b"], **values)
    teaching, data, teachers = _teaching(recipe, 2)
    noisy, alpha = student_targets(teaching, recipe)
    assert alpha == 0
    batch, step = _first(data), 7
    used = 0 if recipe.frozen else step
    clean = [_teaching_of(teacher, recipe)(batch) for teacher in teachers]
    masks, expected = [], torch.zeros(len(batch.index), 10, dtype=torch.float64)
    for number, (logits, alpha) in enumerate(zip(clean, recipe.teacher_alphas, strict=True)):
        keys = torch.tensor([recipe.seed]), torch.tensor([used])
        low, high = recipe.sigma_range
        sigma = torch.tensor([low])
        if high > low:
            sigma = eager.draw_sigma(sigma, torch.tensor([high]), *keys, teacher_id=number)
        mask = eager.selected_rows(torch.tensor([alpha]), *keys, batch.index, teacher_id=number)
        xi = eager.draw_xi(
            sigma,
            *keys,
            batch.index,
            10,
            shared=recipe.noise == "shared",
            teacher_id=number,
            dtype=torch.float64,
        )
        expected += (1 + torch.where(mask[0, :, None], xi[0], 0.0)) * logits / 2
        masks.append(mask)
    _close(noisy(batch, _view(data, batch), torch.tensor(step)), expected)
    _close(_clean(teaching)(batch, _view(data, batch), torch.tensor(step)), sum(clean) / 2)
    assert not torch.equal(*masks)


def _teaching_of(teacher: Model, recipe: Recipe) -> Callable[[Batch], Tensor]:
    """The teacher's clean logits of a batch in the first epoch, float64."""
    data, exact = _data(recipe), copy.deepcopy(teacher.network).double()

    def logits(batch: Batch) -> Tensor:
        pixels = teacher.preprocess(batch.images, _view(data, batch))
        return exact(pixels.double()).detach()

    return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noisy_logits_are_what_the_loss_regresses_on(dtype: torch.dtype) -> None:
    teacher = 5 * torch.randn(40, 7, dtype=dtype)
    noise: Any = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "step": 9, "index": torch.arange(40) + 5}
    targets = noisy_logits(teacher, **noise)
    assert targets.dtype == dtype
    loss, grad = noisy_l2_value_and_grad(targets, teacher, **noise, reduction="sum")
    tolerance = torch.finfo(dtype).eps * teacher.abs().max().item() * 4
    assert grad.abs().max().item() <= tolerance
    assert loss.item() <= teacher.numel() * tolerance**2
    changed = (targets != teacher).any(1)
    assert 0 < changed.sum() < 40
    assert torch.equal(noisy_logits(teacher, **noise | {"alpha": 0.0}), teacher)
    other = noisy_logits(teacher, **noise, teacher_id=1)
    assert not torch.equal((other != teacher).any(1), changed)


@pytest.mark.parametrize("kind", ["eager", "compile", "native"])
def test_every_version_gives_a_teacher_its_own_noise(kind: Any) -> None:
    if kind == "native":
        pytest.importorskip("fastnt._native")
    teacher = torch.randn(16, 5)
    noise: Any = {"alpha": 0.5, "sigma": 1.0, "seed": 1, "teacher_id": 2}
    exact = noisy_logits(teacher.double(), **noise)
    torch.testing.assert_close(
        noisy_logits(teacher, **noise, impl=kind).double(), exact, rtol=3e-5, atol=3e-5
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"combine": "median"}, "one of mean, geometric"),
        ({"teacher_alphas": "0.5"}, "there is one teacher"),
        ({"teacher": ["a", "b"], "teacher_alphas": "0.5"}, "1 value for 2 teachers"),
        ({"teacher": ["a", "b"], "teacher_alphas": "0,1.5"}, "between 0 and 1"),
        ({"teacher": ["a", "b"], "teacher_alphas": "0,x"}, "numbers, such as"),
        ({"teacher": ["a", "b"], "teacher_alphas": "0,1", "combine": "geometric"}, "combine=mean"),
        ({"teacher": ["a", "b"], "teacher_alphas": "0,1", "perturb": "student"}, "perturb=teacher"),
        ({"teacher": ["a", 3]}, "a list of texts"),
        ({"teacher": ["a", ""]}, "a list of texts"),
    ],
    ids=str,
)
def test_a_recipe_that_makes_no_sense_is_refused(values: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        _recipe(**values)


def test_one_teacher_is_a_text_however_it_was_given(tmp_path: Path) -> None:
    assert _recipe(teacher=["a"]) == _recipe(teacher="a")
    assert _recipe(teacher=[]).teachers == _recipe().teachers == ()
    config = tmp_path / "a.toml"
    config.write_text('teacher = ["a", "b,c"]\nteacher_alphas = [0, 0.5]\n')
    recipe = load_recipe("digits", config)
    assert recipe.teachers == (str(Path("a").absolute()), str(Path("b,c").absolute()))
    assert recipe.teacher_alphas == (0.0, 0.5)


@pytest.mark.gpu
def test_a_mapped_table_is_read_by_kernels_and_graphs() -> None:
    device = torch.device("cuda")
    table = torch.from_numpy(np.arange(5000, dtype=np.float32).reshape(1000, 5))
    mapped = map_to_device(table, device)
    assert mapped.is_cuda
    before = torch.cuda.memory_allocated()
    index = torch.tensor([999, 0, 500], device=device)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        rows = mapped.index_select(0, index)
    index.copy_(torch.tensor([1, 2, 3]))
    graph.replay()
    assert torch.equal(rows.cpu(), table[1:4])
    assert torch.cuda.memory_allocated() - before < table.nbytes


@pytest.mark.gpu
def test_a_live_teacher_runs_inside_the_captured_step() -> None:
    device = torch.device("cuda")
    recipe = _recipe(crop=2)
    compute = Compute(device, loader="resident")
    data = TrainingData(prepare("digits"), recipe, compute)
    teacher = Model(NETWORK, data.fitted_preprocess(), 10).to(device)
    teaching = make_teaching([teacher], data, compute, Silent())
    student = copy.deepcopy(teacher)
    step = _step(student, _clean(teaching), data, lr=1e-12)
    student.train()
    for epoch in range(4):
        step.begin_epoch(epoch)
        for batch in data.training_loader(32, 5).epoch(epoch):
            step(batch, len(batch.labels))
        assert step.loss.item() < 1e-6
