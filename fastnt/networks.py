"""The paper's networks, built from the paper's own notation (section 4.1), and the user's own.

A network is a line such as ``C5(S1P2)@64-MP2(S2)-C5(S1P2)@128-MP2(S2)-FC1024-FC10``:

    C5(S1P2)@64   convolution, 5 x 5, stride 1, padding 2, 64 kernels
    MP3(S2)       max-pooling 3 x 3, stride 2;  AP3(S2) average-pooling
    FC500         fully connected, 500 units
    D0.5          dropout with probability 0.5
    GAP           the mean over all pixels (not in the paper), for images of any size
    FCK, ...@K    as many units or kernels as there are classes

Square brackets, which group layers in the paper, are ignored. The paper does not say the following. A
ReLU follows every convolution and fully connected layer except the last; where max-pooling comes next,
the ReLU stands behind it, which gives the same numbers. Pooling rounds sizes up, which is the only
reading in which NIN's AP8 fits. Weights are initialised as in He et al. 2015.

A line such as ``mymodule:make_network`` names a network of the user's own: see ``fastnt.factory``.
"""

import math
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fastnt.errors import UserError
from fastnt.factory import call_factory, is_factory
from fastnt.network_checks import Shape, check_network

_NIN = (
    "[C5(S1P2)@192]-[C1(S1P0)@160]-[C1(S1P0)@96-MP3(S2)]-D0.5-"
    "[C5(S1P2)@192]-[C1(S1P0)@192]-[C1(S1P0)@192-AP3(S2)]-D0.5-"
    "[C3(S1P1)@192]-[C1(S1P0)@192]-[C1(S1P0)@10]-AP8(S1)"
)

NETWORKS: dict[str, str] = {
    "digits-teacher": "[C3(S1P1)@32]-[C3(S1P1)@32-MP2(S2)]-[C3(S1P1)@64-MP2(S2)]-FC128-D0.5-FC10",
    "digits-student": "[C3(S1P1)@8-MP2(S2)]-FC32-FC10",
    "mnist-teacher": "[C5(S1P0)@20-MP2(S2)]-[C5(S1P0)@50-MP2(S2)]-FC500-FC10",
    "mnist-student": "FC800-FC800-FC10",
    "nin": _NIN,
    "svhn-student": "[C5(S1P2)@32-MP3(S2)]-[C5(S1P2)@64-MP3(S2)]-FC1024-FC10",
    "cifar10-student": "[C5(S1P2)@64-MP2(S2)]-[C5(S1P2)@128-MP2(S2)]-FC1024-FC10",
    "cifar10-teacher2": (
        "[C5(S1P2)@96-MP3(S2)]-[C5(S1P2)@256-MP3(S2)]-[C3(S1P1)@384]-[C3(S1P1)@384]-"
        "[C3(S1P1)@256-MP3(S2)]-FC2048-D0.5-FC2048-D0.5-FC10"
    ),
    "cifar10-student1": (
        "[C5(S1P2)@64-MP2(S2)]-[C5(S1P2)@112-MP2(S2)]-[C3(S1P1)@128-MP2(S2)]-FC1024-FC10"
    ),
    "cifar10-student2": (
        "[C5(S1P2)@32-MP2(S2)]-[C5(S1P2)@32-MP2(S2)]-[C3(S1P1)@64-MP2(S2)]-FC1024-FC10"
    ),
    "cifar10-student3": (
        "[C5(S1P2)@16-MP2(S2)]-[C5(S1P2)@32-MP2(S2)]-[C3(S1P1)@64-MP2(S2)]-FC1024-FC10"
    ),
    "folder-teacher": (
        "[C3(S1P1)@64]-[C3(S1P1)@64-MP2(S2)]-[C3(S1P1)@128]-[C3(S1P1)@128-MP2(S2)]-"
        "[C3(S1P1)@256]-[C3(S1P1)@256]-GAP-D0.5-FCK"
    ),
    "folder-student": "[C3(S1P1)@32-MP2(S2)]-[C3(S1P1)@64-MP2(S2)]-[C3(S1P1)@128]-GAP-FCK",
}

_Maker = Callable[[re.Match[str], Tensor], nn.Module]


def _convolution(token: re.Match[str], x: Tensor) -> nn.Module:
    kernel, stride, padding, kernels = map(int, token.groups())
    return nn.Conv2d(x.shape[1], kernels, kernel, stride, padding)


def _linear(token: re.Match[str], x: Tensor) -> nn.Module:
    return nn.Linear(x.shape[1], int(token[1]))


def _max_pool(token: re.Match[str], x: Tensor) -> nn.Module:
    return nn.MaxPool2d(int(token[1]), int(token[2]), ceil_mode=True)


def _average_pool(token: re.Match[str], x: Tensor) -> nn.Module:
    return nn.AvgPool2d(int(token[1]), int(token[2]), ceil_mode=True)


def _dropout(token: re.Match[str], x: Tensor) -> nn.Module:
    return nn.Dropout(float(token[1]))


def _global_average(token: re.Match[str], x: Tensor) -> nn.Module:
    return nn.AdaptiveAvgPool2d(1)


MOST_VALUES = 1 << 26  # of an image, and of what a layer makes of it: 256 MB in float32
_SIZE = r"[1-9]\d{0,5}"
_LAYERS: dict[str, _Maker] = {
    rf"C({_SIZE})\(S({_SIZE})P(\d{{1,6}})\)@({_SIZE})": _convolution,
    rf"MP({_SIZE})\(S({_SIZE})\)": _max_pool,
    rf"AP({_SIZE})\(S({_SIZE})\)": _average_pool,
    rf"FC({_SIZE})": _linear,
    r"D(0?\.\d+)": _dropout,
    r"GAP": _global_average,
}


def build_network(notation: str, shape: Shape, classes: int) -> nn.Module:
    """Build a network; torch's default generator draws its weights, as He et al. unless by a factory.

    Args:
        notation: a name in ``NETWORKS``, a line in the paper's notation, or ``module:factory``.
        shape: one image, (channels, height, width).
        classes: the number of logits.

    Returns:
        A module from images (N, channels, height, width), floats, to logits (N, classes).

    Raises:
        UserError: the notation cannot be parsed, or does not fit the shape or the classes; or the
            factory cannot be imported, or returns no such network.
    """
    if is_factory(notation):
        network = call_factory(notation, classes)
        check_network(network, shape, classes, f"the network of {notation}")
        return network
    return _build(NETWORKS.get(notation, notation), shape, classes)


def count_notation(notation: str, shape: Shape, classes: int) -> int:
    """Return how many parameters a network in notation has; no memory is taken for them.

    Raises:
        UserError: as `build_network`.
    """
    line = NETWORKS.get(notation, notation)
    return sum(count_parameters(layer) for layer in _layers(line, shape, classes))


def _build(line: str, shape: Shape, classes: int) -> nn.Sequential:
    layers = _layers(line, shape, classes)
    try:
        for layer in layers:
            for name, parameter in layer.named_parameters():
                setattr(layer, name, nn.Parameter(torch.empty(parameter.shape, device="cpu")))
    except RuntimeError as error:
        raise UserError(f"network {line!r} does not fit into memory; make it smaller") from error
    network = nn.Sequential(*layers)
    _initialise(network)
    return network


def _layers(line: str, shape: Shape, classes: int) -> list[nn.Module]:
    """Return the layers of a network, their parameters on the meta device."""
    if math.prod(shape) > MOST_VALUES:
        raise UserError(f"an image of shape {shape} has more than {MOST_VALUES:,} values")
    sized = re.sub(r"(FC|@)K\b", rf"\g<1>{classes}", line)
    tokens = re.sub(r"[\[\]\s]", "", sized).split("-")
    layers: list[nn.Module] = []
    x = torch.empty((1, *shape), device="meta")

    def append(layer: nn.Module) -> None:
        nonlocal x
        layers.append(layer)
        x = _after(layer, x)
        if x.numel() > MOST_VALUES:
            raise RuntimeError(f"it gives more than {MOST_VALUES:,} values for an image")

    with torch.device("meta"):
        for token in tokens:
            if token.startswith("FC") and x.dim() > 2:
                append(nn.Flatten())
            try:
                layer = _make_layer(token, x, line)
                append(layer)
            except (RuntimeError, ValueError, ZeroDivisionError) as error:
                raise UserError(
                    f"layer {token} of network {line!r} does not fit what comes before it, "
                    f"{tuple(x.shape[1:])}: {str(error).splitlines()[0]}"
                ) from error
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                append(nn.ReLU())
            elif (
                isinstance(layer, nn.MaxPool2d) and layers[:-1] and isinstance(layers[-2], nn.ReLU)
            ):
                layers[-2:] = layer, layers[-2]  # the same bits, forward and backward, for less
        if x.dim() > 2:
            append(nn.Flatten())
    if tuple(x.shape) != (1, classes) or not any(isinstance(m, nn.ReLU) for m in layers):
        raise UserError(
            f"network {line!r} gives {tuple(x.shape[1:])} for images of shape {shape}, "
            f"but {classes} logits are needed; end it with FC{classes}"
        )
    _drop_last_relu(layers)
    return layers


def _after(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what a layer makes of ``x``, in shape alone.

    On the meta device itself, most layers would import torch's compiler, which takes seconds.

    Raises:
        RuntimeError: the layer does not fit.
    """
    if isinstance(layer, nn.Flatten):
        return x.flatten(1)
    if isinstance(layer, nn.Linear):
        return x.new_empty((1, layer.out_features))
    if isinstance(layer, nn.Conv2d):
        kernel, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
        sides = [(side + 2 * padding - kernel) // stride + 1 for side in x.shape[2:]]
        if len(sides) < 2:
            raise RuntimeError("a convolution needs an image, not a list of numbers")
        if min(sides) < 1:
            raise RuntimeError(f"a kernel of {kernel} x {kernel} needs a larger image")
        return x.new_empty((1, layer.out_channels, *sides))
    if isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
        pooled = layer(torch.zeros((1, *x.shape[2:]), device="cpu"))
        return x.new_empty((1, x.shape[1], *pooled.shape[1:]))
    return x


def _make_layer(token: str, x: Tensor, line: str) -> nn.Module:
    for pattern, make in _LAYERS.items():
        if match := re.fullmatch(pattern, token):
            return make(match, x)
    raise UserError(
        f"cannot read {token!r} in network {line!r}; a layer is C5(S1P2)@64, MP2(S2), AP3(S2), "
        "GAP, FC500, FCK or D0.5, module:factory is a network of your own, and the named networks "
        f"are {', '.join(NETWORKS)}"
    )


def _drop_last_relu(layers: list[nn.Module]) -> None:
    """Remove the ReLU after the last convolution or fully connected layer, which gives the logits."""
    relus = [i for i, layer in enumerate(layers) if isinstance(layer, nn.ReLU)]
    del layers[relus[-1]]


def _initialise(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def count_parameters(network: nn.Module) -> int:
    """Return the number of weights and biases."""
    return sum(p.numel() for p in network.parameters())


def count_multiplies(network: nn.Module, shape: Shape) -> int:
    """Return the multiplications in convolutions and matrix products of one image's forward pass.

    This is the paper's measure of runtime (section 5.5). ``shape`` is (channels, height, width).
    """
    was_training = network.training
    weight = next(network.parameters())
    # Two: a network may want an even batch, or drop the dimension of a single image.
    images = torch.zeros((2, *shape), dtype=weight.dtype, device=weight.device)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter cannot count fused attention
    try:
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            network.eval()
            network(images)
    finally:
        network.train(was_training)
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops()) // 4  # of two images, and it counts additions too
