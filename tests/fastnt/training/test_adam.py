"""Adam on a CPU is torch's fused Adam, bit for bit."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import Parameter

from fastnt.training.adam import FusedAdam, new_adam


def _network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    network.register_parameter("unused", Parameter(torch.ones(3)))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _train(network: nn.Module, optimizer: Any, rate: torch.Tensor, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        images = torch.randn(5, 3, 8, 8, generator=generator)
        network(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rate.mul_(0.9)


def _values(network: nn.Module, optimizer: Any) -> Iterator[torch.Tensor]:
    for parameter in network.parameters():
        yield parameter
        yield from (optimizer.state[parameter][name] for name in sorted(optimizer.state[parameter]))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_computes_what_torch_does(decay: float) -> None:
    ours, theirs = _network(), _network()
    rates = [torch.tensor(1e-2) for _ in range(2)]
    adam = new_adam(ours.parameters(), rates[0], decay, capturable=False)
    assert isinstance(adam, FusedAdam)
    torchs = torch.optim.Adam(
        theirs.parameters(),
        lr=rates[1],
        fused=True,
        weight_decay=decay,
        decoupled_weight_decay=decay > 0,
    )
    _train(ours, adam, rates[0], 9)
    _train(theirs, torchs, rates[1], 9)
    pairs = zip(_values(ours, adam), _values(theirs, torchs), strict=True)
    for one, other in pairs:
        assert torch.equal(one, other)
        assert (one.dtype, one.stride()) == (other.dtype, other.stride())
    assert not adam.state[ours.get_parameter("unused")]  # it has no gradient and stays
    assert ours.get_parameter("0.weight").grad is None


@pytest.mark.parametrize(
    ("dtype", "scaled"), [(torch.float64, False), (torch.bfloat16, False), (torch.float32, True)]
)
def test_torchs_own_does_the_rest(dtype: torch.dtype, scaled: bool) -> None:
    parameter = Parameter(torch.zeros(3, dtype=dtype))
    rate = torch.tensor(1e-3)
    adam = new_adam([parameter], rate, 0.0, capturable=False, scaled=scaled)
    assert isinstance(adam, torch.optim.Adam)


def test_a_network_is_made_without_torchs_compiler() -> None:
    """To import it takes seconds in each process of a study."""
    code = (
        "import sys, torch; from fastnt.networks import NETWORKS, build_network\n"
        "for name in NETWORKS: build_network(name, (3, 32, 32), 10)\n"
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_parameters_that_are_computed_are_refused() -> None:
    """They would get no gradient, and be left as they are without a word."""
    with pytest.raises(ValueError, match="no leaf"):
        FusedAdam([Parameter(torch.ones(3)) * 2], torch.tensor(0.1), 0.0)  # type: ignore[list-item]
