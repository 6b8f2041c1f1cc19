"""A residual network as torchvision writes it, with batch normalisation: what a user brings."""

import sys

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inside, outside, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, groups=2, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, num_classes=1000, width=8):
        super().__init__()
        self.conv1 = nn.LazyConv2d(width, 3, 1, 1, bias=False)  # any number of channels
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = Block(width, width, 1)
        self.layer2 = Block(width, 2 * width, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc(torch.flatten(self.avgpool(self.layer2(self.layer1(x))), 1))


def small(**options):
    # Not below 8: on CPUs with AVX2 the backward pass of torch 2.13's strided 1 x 1 convolutions writes
    # beyond its buffers where fewer channels come in (channels last, one thread).
    return ResNet(width=12, **options)


def pretrained(num_classes):
    """Weights that do not depend on torch's seed."""
    network = ResNet(num_classes)
    network(torch.zeros(2, 1, 8, 8))  # makes the lazy layer
    generator = torch.Generator().manual_seed(7)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return network


def ten():
    """Takes no number of classes."""
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


class Makers:
    small = staticmethod(small)
    answer = 42
    module = nn.Linear(2, 2)

    @staticmethod
    def fails(num_classes):
        raise KeyError(f"no weights for {num_classes} classes")

    @staticmethod
    def leaves():
        sys.exit(3)

    @staticmethod
    def has_no_values(num_classes):
        with torch.device("meta"):
            return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

    @staticmethod
    def is_not_finite(num_classes):
        network = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
        network.append(nn.BatchNorm1d(num_classes))
        nn.init.constant_(network[2].bias, float("nan"))
        return network

    @staticmethod
    def none():
        return None

    @staticmethod
    def nothing_to_train(num_classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes)).requires_grad_(False)

    @staticmethod
    def no_parameters():
        return nn.Flatten()

    @staticmethod
    def tuples(num_classes):
        class Two(nn.Linear):
            def forward(self, x):
                return super().forward(x.flatten(1)), x

        return Two(64, num_classes)

    @staticmethod
    def wants_more_than_one(num_classes):
        return nn.Sequential(nn.Flatten(), nn.LazyBatchNorm1d(), nn.LazyLinear(num_classes))

    @staticmethod
    def tied(num_classes):
        """Two layers, one weight; and a buffer that is a view."""
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64))
        network[2].weight = network[1].weight
        network.append(nn.Linear(64, num_classes).bfloat16().float())
        network.register_buffer("halves", torch.ones(3, dtype=torch.bfloat16))
        network.register_buffer("rows", torch.zeros(4, 6).t())
        return network
