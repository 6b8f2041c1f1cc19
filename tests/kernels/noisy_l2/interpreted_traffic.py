"""What the Triton version launches and moves through autograd, counted in the interpreter.

Loads and stores are wrapped where the interpreter does them; what counts are the bytes of logits and
gradients, by the tensor that they belong to.
"""

from collections import Counter

import numpy as np
import pytest
import torch
from triton.runtime import interpreter

import fastnt
from fastnt.kernels.noisy_l2 import tickets
from fastnt.kernels.noisy_l2.tickets import CELLS, GRAPH_CELLS, Tickets

SHAPES = [(6, 10), (70, 10), (9, 100), (3, 257), (2, 4100)]


@pytest.fixture
def traffic(monkeypatch):
    """Addresses loaded and stored since the last ``clear``, with their bytes; and launches."""

    class Traffic:
        def __init__(self):
            self.clear()

        def clear(self):
            self.loaded, self.stored, self.launches = [], [], []

        def of(self, kind, tensor):
            """How often each element of a tensor was loaded or stored."""
            begin, size = tensor.data_ptr(), tensor.element_size()
            count = Counter()
            for addresses in getattr(self, kind):
                count.update(a for a in addresses if begin <= a < begin + tensor.numel() * size)
            assert all((address - begin) % size == 0 for address in count)
            return [count[begin + size * i] for i in range(tensor.numel())]

        def bytes_in(self, kind, tensors):
            return sum(sum(self.of(kind, t)) * t.element_size() for t in tensors)

    counted = Traffic()
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    load, store, run = builder.create_masked_load, builder.create_masked_store, executor.__call__

    def counted_load(self, pointers, mask, *rest, **named):
        counted.loaded.append(
            pointers.data[np.broadcast_to(mask.data, pointers.data.shape)].tolist()
        )
        return load(self, pointers, mask, *rest, **named)

    def counted_store(self, pointers, value, mask, *rest, **named):
        counted.stored.append(
            pointers.data[np.broadcast_to(mask.data, pointers.data.shape)].tolist()
        )
        return store(self, pointers, value, mask, *rest, **named)

    def counted_run(self, *arguments, **named):
        counted.launches.append(self.fn.__name__)
        return run(self, *arguments, **named)

    monkeypatch.setattr(builder, "create_masked_load", counted_load)
    monkeypatch.setattr(builder, "create_masked_store", counted_store)
    monkeypatch.setattr(executor, "__call__", counted_run)
    return counted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_input_is_read_once_and_the_gradient_written_once(traffic, shape, dtype):
    student = torch.randn(shape).to(dtype).requires_grad_()
    teacher = torch.randn(shape).to(dtype)
    loss = fastnt.noisy_l2_loss(student, teacher, alpha=0.5, sigma=0.6, seed=3, impl="triton")
    forward = traffic.launches
    assert forward == ["noisy_l2_kernel"]
    traffic.launches = []
    loss.backward()
    assert traffic.launches == ["scale_kernel"]  # which finds that grad_output is 1
    for tensor in (student.detach(), teacher):
        assert traffic.of("loaded", tensor) == [1] * tensor.numel()
    assert traffic.of("stored", student.grad) == [1] * student.numel()
    assert traffic.of("loaded", student.grad) == [0] * student.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["batchmean", "none"])
def test_a_gradient_that_is_scaled_is_right(dtype, reduction):
    student, teacher = torch.randn(2, 13, 33).to(dtype)
    given = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "reduction": reduction}
    grads = []
    for impl in ("eager", "triton"):
        leaf = student.clone().requires_grad_()
        loss = fastnt.noisy_l2_loss(leaf, teacher, **given, impl=impl)
        weights = torch.full(loss.shape, 3.0) + torch.arange(loss.numel()).view(loss.shape)
        loss.backward(weights)
        grads.append(leaf.grad)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(grads[1], grads[0], rtol=2 * eps + 1e-6, atol=1e-5)


def test_a_kept_graph_gives_its_gradient_again():
    student, teacher = torch.randn(2, 13, 10)
    student.requires_grad_()
    loss = fastnt.noisy_l2_loss(student, teacher, alpha=1, sigma=0.6, seed=3, impl="triton")
    (first,) = torch.autograd.grad(loss, student, torch.tensor(2.0), retain_graph=True)
    first.mul_(0)
    (second,) = torch.autograd.grad(loss, student, torch.tensor(2.0))
    _, plain = fastnt.noisy_l2_value_and_grad(
        student.detach(), teacher, alpha=1, sigma=0.6, seed=3, impl="triton"
    )
    torch.testing.assert_close(second, 2 * plain)


def test_students_have_each_their_own_factor():
    student, teacher = torch.randn(2, 3, 9, 10)
    leaf = student.clone().requires_grad_()
    given = {"alpha": 0.5, "sigma": 0.6, "seed": 3, "students": True, "impl": "triton"}
    loss = fastnt.noisy_l2_loss(leaf, teacher, **given)
    loss.backward(torch.tensor([1.0, 0.0, 2.0]))
    _, plain = fastnt.noisy_l2_value_and_grad(student, teacher, **given)
    torch.testing.assert_close(leaf.grad, plain * torch.tensor([1.0, 0.0, 2.0])[:, None, None])


def test_the_ticket_is_0_after_each_launch():
    student, teacher = torch.randn(2, 3, 300, 10)
    for _ in range(2):
        fastnt.noisy_l2_value_and_grad(
            student, teacher, alpha=0.5, sigma=0.6, seed=1, students=True, impl="triton"
        )
        cells = tickets.take(3, torch.device("cpu"))
        assert cells is not None
        assert not cells.any()


def addresses(cells, count):
    return {cells.data_ptr() + 4 * i for i in range(count)}


def test_launches_that_may_run_at_once_share_no_ticket():
    ours = Tickets(torch.device("cpu"))
    eager = [ours.take(3, stream, capturing=False) for stream in (11, 12)]
    assert not addresses(eager[0], 3) & addresses(eager[1], 3)
    assert ours.take(3, 11, capturing=False).data_ptr() == eager[0].data_ptr()
    # Two launches in graphs, though captured on one stream, may be replayed on two.
    captured = [ours.take(3, 11, capturing=True) for _ in range(2)]
    used = [addresses(cells, 3) for cells in (*eager, *captured)]
    assert len(set().union(*used)) == 12


def test_tickets_come_to_an_end():
    ours = Tickets(torch.device("cpu"))
    for capturing in (False, True):
        assert ours.take(CELLS + 1, 0, capturing) is None
    taken = [ours.take(CELLS, 0, capturing=True) for _ in range(GRAPH_CELLS // CELLS)]
    (memory,) = {cells.untyped_storage().data_ptr() for cells in taken}
    # The next graphs fill cells of their own.
    others = [ours.take(3, 0, capturing=True) for _ in range(2)]
    assert not any(cells.any() for cells in others)
    assert len({memory, *(cells.untyped_storage().data_ptr() for cells in others)}) == 3
    assert ours.take(1, 0, capturing=False) is not None


def test_no_ticket_gives_the_same_bits(monkeypatch):
    student, teacher = torch.randn(2, 300, 10)
    given = {"alpha": 0.5, "sigma": 0.6, "seed": 1, "impl": "triton"}
    first = fastnt.noisy_l2_value_and_grad(student, teacher, **given)
    monkeypatch.setattr(tickets, "take", lambda count, device: None)
    second = fastnt.noisy_l2_value_and_grad(student, teacher, **given)
    assert all(map(torch.equal, first, second))
