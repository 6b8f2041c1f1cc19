"""What is trained, beside the paper's algorithm written as a plain loop that shares no code with it."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fastnt
from fastnt.data.order import epoch_order
from fastnt.data.prepare import prepare
from fastnt.data.rows import Batch
from fastnt.kernels.augment import augment
from fastnt.monitoring.display import Silent
from fastnt.recipe_files import load_recipe
from fastnt.training.compute import Compute
from fastnt.training.objectives import kd_objective, penalised
from fastnt.training.pipeline import InMemory, open_course, train_student
from fastnt.training.teachers import find_teachers

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "train_samples": 96,
    "batch_size": 40,
    "epochs": 3,
    "lr": 0.01,
    "lr_decay": 0.5,
    "seed": 5,
    "teacher_epochs": 1,
    "student_network": "FC16-FC10",
}


@pytest.mark.parametrize("views", [{}, {"crop": 2, "random_mirror": True}], ids=str)
def test_a_student_is_trained_as_the_paper_says(views: dict[str, Any]) -> None:
    recipe = load_recipe("digits", None, SMALL | views)
    course = open_course(prepare("digits"), recipe, Compute(CPU), Silent())
    teachers = find_teachers(course, [], InMemory())
    student = course.new_student(recipe)
    network = copy.deepcopy(student.network)
    records = train_student(course, course.teach(teachers), student, recipe, InMemory())

    images = torch.cat([batch.images for batch in course.data.ordered.epoch(0)])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    step = 0
    for epoch in range(3):
        total = 0.0
        for rows in torch.from_numpy(epoch_order(5, epoch, 96)).split(40):
            seen = augment(
                images[rows],
                index=rows,
                seed=5,
                epoch=epoch,
                pad=recipe.crop,
                mirror=recipe.random_mirror,
                impl="eager",
            )
            with torch.no_grad():
                targets = teachers[0].eval().network(seen)
            loss = fastnt.noisy_l2_loss(
                network(seen), targets, alpha=0.5, sigma=0.6, seed=5, step=step, index=rows
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
            step += 1
        assert records[epoch].train_loss == pytest.approx(total / 96, rel=1e-5)
        for group in optimizer.param_groups:
            group["lr"] *= 0.5
    for mine, plain in zip(student.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)


def _batch(labels: Tensor) -> Batch:
    return Batch(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), labels, labels)


def test_hintons_loss_is_its_formula() -> None:
    torch.manual_seed(0)
    g, z = 3 * torch.randn(2, 7, 5)
    labels, temperature, weight = torch.arange(7) % 5, 3.0, 0.2
    recipe = load_recipe(
        "digits", None, {"objective": "kd", "temperature": temperature, "label_weight": weight}
    )
    objective = kd_objective(lambda *_: z, recipe)
    loss, grad = objective(g, _batch(labels), None, torch.tensor(0), None)
    p, q = ((x.double() / temperature).softmax(1) for x in (z, g))
    kl = (p * (p.log() - q.log())).sum(1).mean()
    entropy = -g.double().softmax(1).log()[torch.arange(7), labels].mean()
    expected = weight * entropy + (1 - weight) * temperature**2 * kl
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    one_hot = F.one_hot(labels, 5)
    by_hand = weight * (g.double().softmax(1) - one_hot) + (1 - weight) * temperature * (q - p)
    torch.testing.assert_close(grad.double(), by_hand / 7, rtol=1e-4, atol=1e-6)


def test_the_penalty_is_half_its_weight_times_the_mean_squared_norm() -> None:
    torch.manual_seed(0)
    g = 3 * torch.randn(7, 5)
    nothing = penalised(lambda g, *_: (torch.zeros(()), torch.zeros_like(g)), 0.18)
    loss, grad = nothing(g, _batch(torch.arange(7) % 5), None, torch.tensor(0), None)
    torch.testing.assert_close(loss, 0.09 * g.square().sum(1).mean())
    torch.testing.assert_close(grad, 0.18 * g / 7)
