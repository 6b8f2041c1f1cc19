"""Students of one architecture in one step: a layer's weights of all of them are one tensor.

A small student's kernels leave most of a GPU idle, and launching them takes longer than their work. The
step of S stacked students launches about as many kernels as that of one, each S times as large.
Convolutions become grouped ones and matrix products batched ones, which add up in another order: a
stacked student computes what it would alone, but for rounding. No value of one student enters another's,
so that one that diverges stops no other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fastnt.config import Recipe
from fastnt.data.preprocess import View
from fastnt.data.rows import Batch
from fastnt.kernels.philox.eager import as_int64
from fastnt.loss import noisy_l2_value_and_grad
from fastnt.training.adam import new_adam
from fastnt.training.compute import Compute
from fastnt.training.model import Model
from fastnt.training.step import TrainStep
from fastnt.training.targets import Targets


class Stack:
    """Takes a step of each of S students. Their own TrainSteps show where they stand, as ever.

    The weights, moments and counters of these are from now on views of the stack's. They must not
    take steps themselves.
    """

    def __init__(
        self,
        steps: Sequence[TrainStep],
        recipes: Sequence[Recipe],
        targets: Targets,
        views: Callable[[Batch], View | None],
        compute: Compute,
    ) -> None:
        """Stack students that have taken as many steps; `why_not` tells whether they can be stacked.

        Args:
            steps: of the students.
            recipes: theirs, in the same order.
            targets: the logits without noise that all of them regress on.
            views: tells how the images of a batch are seen.
            compute: of the students' steps.
        """
        self._steps, self._recipe, self._targets, self._views = steps, recipes[0], targets, views
        self._precision, self.device = compute.precision, compute.device
        self._preprocess, self._network = steps[0].model.preprocess, steps[0].model.network
        names = [name for name, _ in self._network.named_parameters()]
        stacked = [
            nn.Parameter(torch.stack([p.detach() for p in each]))
            for each in zip(*(step.model.network.parameters() for step in steps), strict=True)
        ]
        self._weights: dict[str, Tensor] = dict(zip(names, stacked, strict=True))
        self._share_counters()
        self.capturable = steps[0].capturable
        self._lr = self._rate.amin()
        self.optimizer = new_adam(
            stacked, self._lr, self._recipe.weight_decay, capturable=self.capturable
        )
        self._share_weights_and_moments()
        sigma = torch.tensor([recipe.sigma_range for recipe in recipes], device=self.device)
        seeds = [as_int64(recipe.seed) for recipe in recipes]
        self._alpha = torch.tensor([recipe.alpha for recipe in recipes], device=self.device)
        self._low, self._high = sigma.unbind(1)
        self._seed = torch.tensor(seeds, device=self.device)
        # Noise that is frozen is that of step 0.
        self._moving = torch.tensor([int(not r.frozen) for r in recipes], device=self.device)

    def __call__(self, batch: Batch, batch_size: int) -> None:
        """Take a step on S batches of ``batch_size`` each, that of the first student first."""
        # The rate of a student that diverged decays no more; those that go on have the lowest.
        self._lr.copy_(self._rate.amin())
        view = self._views(batch)
        with self._precision.autocast(self.device):
            pixels = self._by_student(self._preprocess(batch.images, view))
            logits: Any = torch.vmap(self._forward, randomness="different")(self._weights, pixels)
        loss, grad = noisy_l2_value_and_grad(
            logits,
            self._by_student(self._targets(batch, view, self._number[0])),
            alpha=self._alpha,
            sigma=(self._low, self._high),
            seed=self._seed,
            step=self._number * self._moving,
            index=self._by_student(batch.index),
            students=True,
            noise=self._recipe.noise,
            perturb=self._recipe.perturb,
        )
        logits.backward(grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._loss += loss * batch_size
        self._finite += self._loss.isfinite()
        self._number += 1

    def break_off(self) -> None:
        """Forget the gradients of a step that broke off."""
        self.optimizer.zero_grad(set_to_none=True)

    def release(self) -> None:
        """Give each student weights of its own again."""
        for step in self._steps:
            model: Any = step.model
            for parameter in model.parameters():
                parameter.data = parameter.data.clone()
            model.to(memory_format=torch.channels_last)

    def _by_student(self, values: Tensor) -> Tensor:
        """Return values (S * B, ...) as (S, B, ...)."""
        return values.reshape(len(self._steps), -1, *values.shape[1:])

    def _forward(self, weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
        logits: Tensor = functional_call(self._network, weights, (pixels,))
        return logits

    def _share_counters(self) -> None:
        names = ("rate", "number", "loss", "finite")
        self._rate, self._number, self._loss, self._finite = (
            torch.stack([getattr(step, name) for step in self._steps]) for name in names
        )
        for s, step in enumerate(self._steps):
            step.rate, step.number = self._rate[s], self._number[s]
            step.loss, step.finite = self._loss[s], self._finite[s]

    def _share_weights_and_moments(self) -> None:
        """Take over what the students' optimizers hold, and let all that they hold be views."""
        networks = [list(step.model.network.parameters()) for step in self._steps]
        for stacked, own in zip(self._weights.values(), zip(*networks, strict=True), strict=True):
            states: list[dict[str, Any]] = [
                step.optimizer.state[parameter]
                for step, parameter in zip(self._steps, own, strict=True)
            ]
            zero = torch.zeros((), device=self.device)
            moments = {
                name: torch.stack(
                    [
                        state.get(name, zero.expand_as(p))
                        for state, p in zip(states, own, strict=True)
                    ]
                )
                for name in ("exp_avg", "exp_avg_sq")
            }
            taken = states[0].get("step", zero).clone()
            self.optimizer.state[stacked] = {"step": taken, **moments}
            for s, (parameter, state) in enumerate(zip(own, states, strict=True)):
                parameter.data = stacked.data[s]
                state |= {"step": taken} | {name: each[s] for name, each in moments.items()}


_EQUAL = (  # what students of a stack have in common
    "student_network epochs batch_size lr lr_decay weight_decay objective noise perturb combine"
)


def why_not(student: Model, recipes: Sequence[Recipe], compute: Compute) -> str | None:
    """Return why students cannot be stacked, of whom ``student`` is one; None if they can."""
    first = recipes[0]
    for name in _EQUAL.split():
        if any(getattr(recipe, name) != getattr(first, name) for recipe in recipes):
            return f"they differ in {name}"
    if first.objective != "noisy_l2" or any(r.penalty or r.teacher_alphas for r in recipes):
        return "their objective is not the noisy L2 loss alone"
    if first.crop or first.random_mirror:
        return "each crops and mirrors its images at random, by its own seed"
    if compute.precision.scales:
        return "float16 would scale all their losses alike, and skip the steps of all"
    if student.is_own:
        return "a network of the user's own may not be what its layers say"
    if any(isinstance(module, nn.Dropout) for module in student.modules()):
        return "dropout would draw other units than for each alone"
    if compute.ranks.world_size > 1:
        return "several ranks train each of them"
    return None
