"""Networks of the user's own: imported, called, checked; each thing that is wrong is one sentence."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fastnt.errors import UserError
from fastnt.factory import call_factory, is_factory
from fastnt.network_checks import check_network
from fastnt.networks import NETWORKS, build_network, count_multiplies, count_parameters

SHAPE = (1, 8, 8)


@pytest.mark.parametrize("text", ["a:b", "a.b.c:d.e", "_a1:B_2"])
def test_module_and_attribute_are_told_by_the_colon(text: str) -> None:
    assert is_factory(text)


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", ":b", "a:b:c", "a b:c", "C:\\nets", "dir/a:b", "1a:b", *NETWORKS.values()],
)
def test_other_texts_are_no_factories(text: str) -> None:
    assert not is_factory(text)


@pytest.mark.parametrize("name", ["small", "ResNet", "Makers.small"])
def test_a_factory_is_told_the_number_of_classes(bn_resnet: Path, name: str) -> None:
    network = build_network(f"bn_resnet:{name}", SHAPE, 7)
    assert network(torch.zeros(3, *SHAPE)).shape == (3, 7)
    assert network.training


def test_a_factory_that_takes_no_number_of_classes_is_called_without(bn_resnet: Path) -> None:
    assert build_network("bn_resnet:ten", SHAPE, 10)(torch.zeros(3, *SHAPE)).shape == (3, 10)
    with pytest.raises(
        UserError, match=r"ten gave torch.float32 of shape \(2, 10\).*\(2, 7\), one"
    ):
        build_network("bn_resnet:ten", SHAPE, 7)


def test_weights_follow_the_seed_whatever_the_import_draws(bn_resnet: Path) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(5)
        weights.append(build_network("bn_resnet:small", SHAPE, 10).state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


def test_trying_a_network_changes_no_statistics(bn_resnet: Path) -> None:
    network = build_network("bn_resnet:small", SHAPE, 10)
    fresh = call_factory("bn_resnet:small", 10)
    assert torch.equal(network.bn1.running_mean, fresh.bn1.running_mean)
    before = copy.deepcopy(network.state_dict())
    check_network(network, SHAPE, 10, "it")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bn_resnot:small", "cannot import bn_resnot, of bn_resnot:small; start fastnt in its"),
        ("bn_resnet.sub:small", "cannot import bn_resnet.sub"),
        ("bn_resnet:smal", "bn_resnet has no smal; mend the name in bn_resnet:smal"),
        ("bn_resnet:Makers.smal", "bn_resnet has no Makers.smal"),
        ("bn_resnet:Makers.answer", "is a int; name a function or a class"),
        ("bn_resnet:Makers.module", "is a network itself; name a function or a class"),
        (
            "bn_resnet:Makers.fails",
            "Makers.fails(num_classes=10) failed: KeyError: 'no weights for",
        ),
        ("bn_resnet:Makers.none", "returned None; it must return a torch.nn.Module"),
        ("bn_resnet:Makers.no_parameters", "has no parameters"),
        ("bn_resnet:Makers.tuples", "gave a tuple for images of shape (2, 1, 8, 8)"),
        ("broken:make", "importing broken, of broken:make, failed: SyntaxError"),
        ("exits:make", "importing exits, of exits:make, failed: SystemExit: 3"),
        ("needs:make", "needs, of needs:make, needs no_such_package; install it"),
        ("other_images:make", "cannot take float32 images of shape (2, 1, 8, 8): RuntimeError"),
    ],
)
def test_what_is_wrong_with_a_factory_is_one_sentence(
    bn_resnet: Path, text: str, words: str
) -> None:
    modules = {
        "broken": "def make(:",
        "exits": "raise SystemExit(3)",
        "needs": "import no_such_package",
        "other_images": "from torch import nn\ndef make():\n    return nn.Conv2d(3, 10, 3)",
    }
    for name, code in modules.items():
        Path(f"{name}.py").write_text(code)
    with pytest.raises(UserError) as error:
        build_network(text, SHAPE, 10)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    sys.modules.pop("other_images", None)


def test_multiplications_of_any_network_are_counted(bn_resnet: Path) -> None:
    network = build_network("bn_resnet:small", SHAPE, 10)
    shapes = [p.shape for n, p in network.named_parameters() if p.dim() == 4]
    places = [64, 64, 64, 16, 16, 16]  # 8 x 8, and 4 x 4 behind the stride
    assert count_multiplies(network, SHAPE) == 240 + sum(
        shape.numel() * place for shape, place in zip(shapes, places, strict=True)
    )
    assert count_parameters(network) == sum(p.numel() for p in network.parameters())
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    attention = nn.Sequential(nn.Flatten(1, 2), layer, nn.Flatten(), nn.Linear(64, 10))
    # Four projections, queries by keys and weights by values, two layers; 8 places of 8 units.
    wanted = 8 * (4 * 8 * 8 + 2 * 8 * 16) + 2 * 8 * 8 * 8 + 64 * 10
    assert count_multiplies(attention.eval(), SHAPE) == wanted
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_last_layer_can_follow_the_classes() -> None:
    for classes in (2, 37):
        network = build_network("C3(S1P1)@4-GAP-FCK", (3, 9, 11), classes)
        assert network(torch.zeros(2, 3, 9, 11)).shape == (2, classes)
        network = build_network("C1(S1P0)@8-[C1(S1P0)@K]-GAP", (3, 9, 11), classes)
        assert network(torch.zeros(2, 3, 9, 11)).shape == (2, classes)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8), (65, 40)])
@pytest.mark.parametrize("name", ["folder-teacher", "folder-student"])
def test_the_networks_for_own_data_take_images_of_any_size(
    name: str, size: tuple[int, int]
) -> None:
    assert build_network(name, (2, *size), 5)(torch.zeros(1, 2, *size)).shape == (1, 5)
