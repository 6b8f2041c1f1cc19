"""Networks of the shapes that distillation libraries come with, and networks with habits of their own."""

import threading

import torch
import torch.nn.functional as F
from torch import nn


class LeNet(nn.Module):
    """As KD_Lib's: a ``view`` behind convolutions, for grey images."""

    def __init__(self, num_classes=10, channels=1, size=8):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 16, 3, padding=1)
        self.inside = 16 * (size // 4) ** 2
        self.fc1, self.fc2 = nn.Linear(self.inside, 32), nn.Linear(32, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.view(-1, self.inside))))


class Net(nn.Module):
    """As haitongli's: convolutions with batch normalisation, a ``view``, dropout and log-softmax."""

    def __init__(self, num_classes=10, channels=1, size=8):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(16)
        self.inside = 16 * (size // 4) ** 2
        self.fc1 = nn.Linear(self.inside, 32)
        self.bn = nn.BatchNorm1d(32)
        self.fc2 = nn.Linear(32, num_classes)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.bn1(self.conv1(x)), 2))
        x = F.relu(F.max_pool2d(self.bn2(self.conv2(x)), 2))
        x = F.dropout(F.relu(self.bn(self.fc1(x.view(x.size(0), -1)))), 0.5, self.training)
        return F.log_softmax(self.fc2(x), dim=1)


class Residual(nn.Module):
    def __init__(self, inside, outside, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if stride > 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x):
        preact = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x)
        return F.relu(preact), preact


class ResNet8(nn.Module):
    """As RepDistiller's resnet8: features on request, pre-activations, a ``view`` behind pooling."""

    def __init__(self, num_classes=10, channels=1, width=8):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layers = nn.ModuleList(
            [Residual(width, width, 1), Residual(width, 2 * width, 2), Residual(2 * width, 32, 2)]
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x, is_feat=False, preact=False):
        x = F.relu(self.bn1(self.conv1(x)))
        feats = [x]
        for layer in self.layers:
            x, before = layer(x)
            feats.append(before if preact else x)
        x = self.avgpool(x)
        logits = self.fc(x.view(x.size(0), -1))
        return (feats, logits) if is_feat else logits


class Featured(ResNet8):
    """As mdistiller's: logits and a dict of features, always."""

    def forward(self, x):
        feats, logits = super().forward(x, is_feat=True)
        return logits, {"feats": feats, "pooled_feat": feats[-1].mean((2, 3))}


class Vgg8(nn.Module):
    """As RepDistiller's vgg8: blocks of convolutions with pooling between."""

    def __init__(self, num_classes=10, channels=1):
        super().__init__()
        blocks, inside = [], channels
        for width in (8, 16, 16):
            blocks += [nn.Conv2d(inside, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inside = width
        self.block = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(inside, num_classes)

    def forward(self, x):
        x = self.pool(F.max_pool2d(self.block(x), 2))
        return self.classifier(x.view(x.size(0), -1))


class Shuffle(nn.Module):
    """As RepDistiller's ShuffleNet: grouped convolutions, channels shuffled by ``view``."""

    def __init__(self, num_classes=10, channels=1, groups=2):
        super().__init__()
        self.groups = groups
        self.conv1 = nn.Conv2d(channels, 8, 1, bias=False)
        self.conv2 = nn.Conv2d(8, 16, 1, groups=groups, bias=False)
        self.depthwise = nn.Conv2d(16, 16, 3, 2, 1, groups=16, bias=False)
        self.linear = nn.Linear(16, num_classes)

    def forward(self, x):
        x = self.conv2(F.relu(self.conv1(x)))
        n, c, h, w = x.size()
        x = (
            x.view(n, self.groups, c // self.groups, h, w)
            .permute(0, 2, 1, 3, 4)
            .reshape(n, c, h, w)
        )
        x = F.relu(self.depthwise(x))
        x = F.avg_pool2d(x, x.size(2))
        return self.linear(x.view(x.size(0), -1))


class Mobile(nn.Module):
    """As mdistiller's MobileNetV2: an inverted residual of ReLU6 and depthwise convolutions."""

    def __init__(self, num_classes=10, channels=1):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8))
        self.inverted = nn.Sequential(
            nn.Conv2d(8, 24, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU6(inplace=True),
            nn.Conv2d(24, 24, 3, 1, 1, groups=24, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU6(inplace=True),
            nn.Conv2d(24, 8, 1, bias=False),
        )
        self.classifier = nn.Sequential(nn.Linear(8, num_classes))

    def forward(self, x):
        x = self.stem(x)
        x = F.adaptive_avg_pool2d(x + self.inverted(x), 1)
        return self.classifier(x.view(x.size(0), -1))


LIBRARIES = ["LeNet", "Net", "ResNet8", "Featured", "Vgg8", "Shuffle", "Mobile"]


class Linear(nn.Module):
    """What the networks with habits have in common."""

    def __init__(self, num_classes=10, pixels=64):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(pixels, num_classes))

    def forward(self, x):
        return self.body(x)


class Squeezes(Linear):
    """It loses the dimension of a batch of one."""

    def forward(self, x):
        return self.body(x).squeeze()


class WantsEven(Linear):
    """It takes images by twos."""

    def forward(self, x):
        return self.body(x.reshape(-1, 2, *x.shape[1:]).flatten(0, 1))


class Single(Linear):
    """It works in float32 alone: its table is of that type."""

    def forward(self, x):
        logits = self.body(x)
        return torch.zeros(logits.shape).index_add_(0, torch.arange(len(logits)), logits)


class Keeps(Linear):
    """It keeps its activations, as hooks for features do."""

    def forward(self, x):
        self.kept = self.body(x)
        return self.kept


class Locked(Linear):
    def __init__(self, **options):
        super().__init__(**options)
        self.lock = threading.Lock()


class Generating(Linear):
    def __init__(self, **options):
        super().__init__(**options)
        self.numbers = (number for number in range(3))


class Drawing(Linear):
    """It has a torch.Generator of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.generator = torch.Generator().manual_seed(1)


class WeightNorm(Linear):
    """Its weight is normalised in torch's old way."""

    def __init__(self, **options):
        super().__init__(**options)
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.body[1] = nn.utils.weight_norm(self.body[1])


class Complex(Linear):
    def __init__(self, **options):
        super().__init__(**options)
        self.phase = nn.Parameter(torch.ones(1, dtype=torch.complex64))

    def forward(self, x):
        return self.body(x) * self.phase.abs()


class Expanded(Linear):
    def __init__(self, **options):
        super().__init__(**options)
        self.bias = nn.Parameter(torch.zeros(1).expand(len(self.body[1].bias)))

    def forward(self, x):
        return self.body(x) + self.bias


class Masked(Linear):
    """A buffer holds infinities, as a mask of attention does."""

    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))


class Silent(Linear):
    """Its ``train`` keeps a part in evaluation mode and returns nothing."""

    def train(self, mode=True):
        super().train(mode)
        self.body[0].eval()


class Empty(Linear):
    """It counts as False."""

    def __len__(self):
        return 0


class Prints(Linear):
    def forward(self, x):
        print("shape", x.shape)
        return self.body(x)


def scripted(num_classes=10, pixels=64):
    return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(pixels, num_classes)))
