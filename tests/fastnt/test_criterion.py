"""A counting loss hands out each step once, wherever it goes, and says what it cannot learn."""

import copy
import io
import pickle
import threading
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
import torch.multiprocessing  # teaches the pickler to share tensors
from torch import Tensor, nn

from fastnt import NoisyL2Loss, noisy_l2_loss, noisy_l2_value_and_grad

SEEDED = {"alpha": 1.0, "sigma": 0.6, "seed": 3}


def _losses(criterion: NoisyL2Loss, count: int) -> list[float]:
    student, teacher = torch.zeros(1, 4), torch.ones(1, 4)
    return [criterion(student, teacher).item() for _ in range(count)]


def test_threads_that_share_a_loss_get_each_step_once() -> None:
    wanted = sorted(_losses(NoisyL2Loss(**SEEDED), 8 * 200))
    criterion, found = NoisyL2Loss(**SEEDED), list[float]()
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        found.extend(_losses(criterion, 200))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == wanted
    assert criterion.step == 8 * 200


def _sent(criterion: NoisyL2Loss) -> NoisyL2Loss:
    """What another process of torch.multiprocessing receives: tensors in shared memory."""
    return pickle.loads(bytes(ForkingPickler.dumps(criterion)))


def _saved(criterion: NoisyL2Loss) -> NoisyL2Loss:
    file = io.BytesIO()
    torch.save(criterion, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("hand_over", [_sent, copy.deepcopy, _saved])
def test_each_process_and_copy_counts_for_itself(hand_over) -> None:
    criterion = NoisyL2Loss(**SEEDED)
    wanted = _losses(NoisyL2Loss(**SEEDED), 6)
    assert _losses(criterion, 2) == wanted[:2]
    ranks = [hand_over(criterion) for _ in range(2)]
    for _ in range(2):  # in turns, and each goes on from where the loss stood
        for rank in ranks:
            position = int(rank.step)
            assert _losses(rank, 1) == wanted[position : position + 1]
    assert [int(rank.step) for rank in (criterion, *ranks)] == [2, 4, 4]


def test_a_loss_from_the_meta_device_can_be_reset() -> None:
    with torch.device("meta"):
        criterion = nn.Sequential(NoisyL2Loss(**SEEDED), NoisyL2Loss(alpha=0.5, sigma=0.6))
    criterion.to_empty(device="cpu")
    criterion[0].step.fill_(1 << 40)  # what memory may hold
    for module in criterion.children():
        module.reset_parameters()
    assert _losses(criterion[0], 3) == _losses(NoisyL2Loss(**SEEDED), 3)


LEARNABLE = [
    lambda: nn.Parameter(torch.tensor(0.5)),
    lambda: torch.tensor(0.5, requires_grad=True),
    lambda: torch.tensor(0.2, requires_grad=True) * 2,
]


@pytest.mark.parametrize("learnable", LEARNABLE)
@pytest.mark.parametrize(
    ("name", "place"),
    [("alpha", lambda v: v), ("sigma", lambda v: v), ("sigma", lambda v: (0.1, v))],
)
def test_what_would_never_get_a_gradient_is_refused(name, place, learnable) -> None:
    value = place(learnable())
    noise = {"alpha": 0.5, "sigma": 0.6, name: value}
    student, teacher = torch.randn(2, 3, 4)
    match = rf"{name} never gets a gradient: pass it without, as {name}\.detach\(\)"
    with pytest.raises(ValueError, match=match):
        NoisyL2Loss(**noise)
    for function in (noisy_l2_loss, noisy_l2_value_and_grad):
        with pytest.raises(ValueError, match=match):
            function(student, teacher, **noise, seed=0)
    criterion = NoisyL2Loss(alpha=0.5, sigma=0.6)
    setattr(criterion, name, value)  # a schedule may change it, but not so
    with pytest.raises(ValueError, match=match):
        criterion(student, teacher)


def test_tensors_without_a_gradient_serve_as_before() -> None:
    student, teacher = torch.randn(2, 3, 4)
    values: list[Tensor] = [torch.tensor(0.5), nn.Parameter(torch.tensor(0.5), requires_grad=False)]
    losses = [noisy_l2_loss(student, teacher, alpha=value, sigma=value, seed=0) for value in values]
    assert losses[0] == losses[1] == noisy_l2_loss(student, teacher, alpha=0.5, sigma=0.5, seed=0)


def test_a_given_step_is_used_and_nothing_is_counted() -> None:
    student, teacher, index = torch.zeros(2, 4), torch.ones(2, 4), torch.tensor([7, 9])
    criterion = NoisyL2Loss(**SEEDED)
    for step in (5, torch.tensor(6)):
        wanted = noisy_l2_loss(student, teacher, **SEEDED, step=step, index=index)
        assert criterion(student, teacher, index, step=step) == wanted
    assert criterion.step == 0
    assert criterion(student, teacher, index) == criterion(student, teacher, index, step=0)
    assert criterion.step == 1
    assert criterion.eval()(student, teacher, step=5) == 2  # the clean loss


def test_micro_batches_of_one_step_are_one_batch() -> None:
    student, teacher, index = torch.zeros(8, 4), torch.randn(8, 4), torch.arange(8) + 100
    criterion = NoisyL2Loss(**SEEDED, reduction="sum")
    whole = criterion(student, teacher, index, step=3)
    parts = [
        criterion(student[i : i + 2], teacher[i : i + 2], index[i : i + 2], step=3)
        for i in (0, 2, 4, 6)
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_states_go_between_losses_that_count_and_those_that_do_not() -> None:
    counting = nn.Sequential(NoisyL2Loss(**SEEDED))
    _losses(counting[0], 2)
    free = nn.Sequential(NoisyL2Loss(alpha=0.5, sigma=0.6))
    state = counting.state_dict()
    free.load_state_dict(state)
    assert list(state) == ["0.step"]  # the caller's stays whole
    counting.load_state_dict(free.state_dict())
    assert counting[0].step == 2
    for model in (counting, free):
        with pytest.raises(RuntimeError, match="Unexpected key"):
            model.load_state_dict({"0.stop": torch.zeros(())})


def test_a_loss_made_in_inference_mode_counts_outside() -> None:
    with torch.inference_mode():
        criterion, teacher = NoisyL2Loss(**SEEDED), torch.ones(1, 4)
        criterion(torch.zeros(1, 4), teacher)
    student = torch.zeros(1, 4, requires_grad=True)
    criterion(student, teacher).backward()
    assert criterion.step == 2
    assert student.grad is not None


def test_what_cannot_work_is_one_sentence() -> None:
    with torch.device("meta"):
        criterion = NoisyL2Loss(**SEEDED)
    with pytest.raises(RuntimeError, match=r"made on the meta device.* reset_parameters\(\)"):
        _losses(criterion, 1)
    for seed in (3, None):
        criterion = NoisyL2Loss(0.5, 0.6, seed=seed)
        with pytest.raises(RuntimeError, match="trace the network without it"):
            torch.jit.trace(criterion, (torch.zeros(2, 4), torch.ones(2, 4)))
