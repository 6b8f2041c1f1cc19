"""The native op as torch.compile sees it."""

import pytest
import torch
import torch._dynamo.testing

from fastnt.kernels.augment import augment
from fastnt.kernels.native import MISSING, PRESENT

if not PRESENT:
    pytest.skip(MISSING, allow_module_level=True)


def images_of(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_compiled_whole_and_once_with_the_same_bits():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    view = {"pad": 2, "mirror": True}

    @torch.compile(fullgraph=True, backend=counter)
    def compiled(images, **given):
        return augment(images, **view, **given)

    images, rows = images_of(6, 9, 7, 3), torch.randint(0, 2**32, (6,))
    given = {"index": rows, "flipped": torch.rand(6) < 0.5, "mean": torch.rand(3)}
    for i in range(3):
        counters = {"seed": torch.tensor(i - 1), "epoch": torch.tensor(i)}
        ours = compiled(images, **given, **counters)
        expected = augment(images, **view, **given, **counters, impl="native")
        assert torch.equal(ours, expected)
        assert ours.stride() == expected.stride()
    assert counter.frame_count == 1
    frames = []
    for i in range(4):  # numbers: compiled as they are, and once more as any numbers
        expected = augment(images, **view, seed=2**62 + i, epoch=i, impl="native")
        assert torch.equal(compiled(images, seed=2**62 + i, epoch=i), expected)
        frames.append(counter.frame_count)
    assert frames[1:] == [frames[1]] * 3
    fixed = torch.compile(
        lambda x: augment(x, seed=2**64 - 3, pad=1), fullgraph=True, backend=counter
    )
    assert torch.equal(fixed(images), augment(images, seed=2**64 - 3, pad=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_opcheck(dtype):
    images = images_of(4, 6, 5, 3)
    rows, flipped = torch.arange(8)[::2], torch.rand(4) < 0.5
    seed, epoch = torch.tensor(-3), torch.tensor(2)
    for layout, extra in (
        (images, (rows, flipped, torch.rand(3), None)),
        (images.permute(0, 2, 1, 3), (None, None, None, torch.rand(5, 6, 3))),
        (images[:1].expand(4, 6, 5, 3), (rows, None, None, None)),
    ):
        index, flip, mean, std = extra
        arguments = layout, index, seed, epoch, 2, True, flip, mean, std, dtype
        torch.library.opcheck(torch.ops.fastnt.augment_native.default, arguments)
