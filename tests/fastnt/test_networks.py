"""The paper's networks have the paper's sizes (parameters derived, multiplies as section 5.5 prints)."""

import pytest
import torch
from torch import nn

from fastnt.errors import UserError
from fastnt.networks import NETWORKS, build_network, count_multiplies, count_parameters

MNIST, COLOUR = (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize(
    ("name", "shape", "parameters", "multiplies"),
    [
        ("mnist-teacher", MNIST, 431_080, 2_293_000),
        ("mnist-student", MNIST, 1_276_810, 1_275_200),
        ("nin", COLOUR, 966_986, 222_486_528),  # printed: 223 M
        ("svhn-student", COLOUR, 4_259_274, 19_769_344),
        ("cifar10-student", COLOUR, 8_609_674, 65_742_848),
        ("cifar10-teacher2", COLOUR, 16_327_050, 375_443_456),
        ("cifar10-student1", COLOUR, 2_421_754, 61_155_328),  # printed: 61 M
        ("cifar10-student2", COLOUR, 1_106_410, 11_249_664),  # printed: 11.2 M
        ("cifar10-student3", COLOUR, 1_092_394, 6_744_064),  # printed: 6.7 M
    ],
)
def test_paper_networks_have_the_derived_sizes(
    name: str, shape: tuple[int, int, int], parameters: int, multiplies: int
) -> None:
    network = build_network(name, shape, 10)
    assert count_parameters(network) == parameters
    assert count_multiplies(network, shape) == multiplies


def test_relu_stands_after_every_weighted_layer_but_the_last() -> None:
    for name, line in NETWORKS.items():
        shape = {"digits": (1, 8, 8), "mnist": MNIST}.get(name.split("-")[0], COLOUR)
        layers = list(build_network(line, shape, 10))
        weighted = [i for i, m in enumerate(layers) if isinstance(m, (nn.Conv2d, nn.Linear))]
        rest = [[m for m in layers[i + 1 :] if not isinstance(m, nn.MaxPool2d)] for i in weighted]
        assert all(isinstance(after[0], nn.ReLU) for after in rest[:-1])
        assert not any(isinstance(m, nn.ReLU) for m in layers[weighted[-1] :])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relu_behind_pooling_gives_the_bits_of_relu_before_it(dtype: torch.dtype) -> None:
    network = build_network("C3(S1P1)@8-MP3(S2)-C3(S1P1)@6-MP2(S2)-FC10", COLOUR, 10).to(dtype)
    first, pool, relu, second, pool2, relu2, *end = network
    assert isinstance(pool, nn.MaxPool2d)
    assert isinstance(pool2, nn.MaxPool2d)
    plain = nn.Sequential(first, relu, pool, second, relu2, pool2, *end)
    images = torch.randn(16, *COLOUR).to(dtype)
    grads = []
    for module in (network, plain):
        logits = module(images)
        grads.append(torch.autograd.grad(logits.square().sum(), list(module.parameters())))
        assert torch.equal(logits, network(images))
    assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))


def test_brackets_and_spaces_do_not_matter() -> None:
    plain = build_network("C3(S1P1)@4-MP2(S2)-FC10", COLOUR, 10)
    printed = build_network(" [C3(S1P1)@4 - MP2(S2)] - FC10 ", COLOUR, 10)
    assert str(plain) == str(printed)


def test_weights_follow_the_seed_and_he_et_al() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return build_network("FC2000-FC10", MNIST, 10)[1].weight.detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    # 1.6 million normals: the standard deviation is known to about 0.06 %.
    assert weights(3).std().item() == pytest.approx((2 / 784) ** 0.5, rel=3e-3)


def test_counting_leaves_the_network_in_training_mode() -> None:
    network = build_network("FC8-D0.5-FC10", MNIST, 10)
    count_multiplies(network, MNIST)
    assert network.training
    assert not network[1]._forward_hooks


@pytest.mark.parametrize(
    ("notation", "words"),
    [
        ("FC800-FX10", "cannot read 'FX10'"),
        ("mnist-studnet", "cannot read 'mnist'"),
        ("FC800", "end it with FC10"),
        ("MP2(S2)", "end it with FC10"),
        ("C9(S1P0)@4-C40(S1P0)@4-FC10", "does not fit what comes before it"),
        ("C3(S0P1)@4-FC10", "cannot read 'C3(S0P1)@4'"),
        ("FC0-FC10", "cannot read 'FC0'"),
        ("FC99999999999-FC10", "cannot read 'FC99999999999'"),
        ("", "cannot read ''"),
    ],
)
def test_bad_notation_is_one_clear_sentence(notation: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        build_network(notation, MNIST, 10)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
