import numpy as np
import torch
import triton
import triton.language as tl

from fastnt.kernels.philox import eager
from fastnt.kernels.philox.triton import normals, philox4x32, uniform23, uniform24


@triton.jit
def words_kernel(counters, seed, words, COUNT: tl.constexpr):
    i = tl.arange(0, COUNT)
    c0 = tl.load(counters + i).to(tl.uint32)
    c1 = tl.load(counters + COUNT + i).to(tl.uint32)
    c2 = tl.load(counters + 2 * COUNT + i).to(tl.uint32)
    c3 = tl.load(counters + 3 * COUNT + i).to(tl.uint32)
    w0, w1, w2, w3 = philox4x32(c0, c1, c2, c3, tl.load(seed))
    tl.store(words + i, w0.to(tl.int64))
    tl.store(words + COUNT + i, w1.to(tl.int64))
    tl.store(words + 2 * COUNT + i, w2.to(tl.int64))
    tl.store(words + 3 * COUNT + i, w3.to(tl.int64))


@triton.jit
def normals_kernel(words, out, uniforms, COUNT: tl.constexpr):
    i = tl.arange(0, COUNT)
    w0 = tl.load(words + i).to(tl.uint32)
    w1 = tl.load(words + COUNT + i).to(tl.uint32)
    n0, n1, n2, n3 = normals(w0, w1, w1, w0, 0.0, 1.0, 0)
    tl.store(out + i, n0)
    tl.store(out + COUNT + i, n1)
    tl.store(out + 2 * COUNT + i, n2)
    tl.store(out + 3 * COUNT + i, n3)
    tl.store(uniforms + i, uniform23(w0))
    tl.store(uniforms + COUNT + i, uniform24(w0))


def words_of(counters, seed):
    words = torch.empty_like(counters)
    key = torch.tensor([eager.as_int64(seed)])
    words_kernel[(1,)](counters, key, words, counters.shape[1])
    return words


def test_words_equal_eager(known_answers):
    for case in known_answers["philox4x32_10"]:
        counters = torch.tensor(case["counter"])[:, None].contiguous()
        assert words_of(counters, case["seed"])[:, 0].tolist() == case["words"]


def test_words_equal_eager_for_any_counter():
    counters = torch.randint(0, 2**32, (4, 4096))
    for seed in (0, 2**63, 2**64 - 1, 0x0123456789ABCDEF):
        expected = eager.philox4x32(*counters, torch.tensor(eager.as_int64(seed)))
        assert torch.equal(words_of(counters, seed), torch.stack(expected))


def test_uniforms_and_normals_equal_eager_also_at_the_ends(reference):
    count = 2**17
    draw = np.random.default_rng(1)
    words = draw.integers(0, 2**32, (2, count))
    ends = np.array([0, 511, 512, 2**31 - 1, 2**31, 2**32 - 2**20, 2**32 - 513, 2**32 - 1])
    words[:, :64] = np.repeat(ends, 8), np.tile(ends, 8)
    words[0, 64:4096] = 2**32 - 1 - 512 * np.arange(4096 - 64)  # u near 1, where ln u is near 0
    given = torch.from_numpy(words)
    out, uniforms = torch.empty(4, count), torch.empty(2, count)
    normals_kernel[(1,)](given, out, uniforms, count)
    assert torch.equal(uniforms[0], eager.uniform23(given[0]))
    assert torch.equal(uniforms[1], eager.uniform24(given[0]))
    w = words.astype(np.uint64)
    expected = reference.box_muller((w[0], w[1], w[1], w[0])).T
    error = np.abs(out.numpy() - expected)
    assert np.all(error <= 1e-6 + 5e-7 * np.abs(expected))
