import math

import numpy as np
import pytest
import torch
from scipy import stats

from fastnt.kernels.philox.eager import as_int64, normals, philox4x32, uniform23, uniform24

# Random123's known answers (kat_vectors, philox4x32 with ten rounds): counter, key, words.
RANDOM123 = [
    (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def words_of(counter, seed):
    return [int(w) for w in philox4x32(*counter, torch.tensor(as_int64(seed)))]


@pytest.mark.parametrize(("counter", "key", "words"), RANDOM123)
def test_random123_known_answers(counter, key, words):
    assert words_of(counter, key[0] + (key[1] << 32)) == list(words)


def test_shared_known_answers(known_answers):
    for case in known_answers["philox4x32_10"]:
        assert words_of(case["counter"], case["seed"]) == case["words"]


def test_words_equal_the_reference_for_any_counter(reference):
    draw = np.random.default_rng(0)
    counters = draw.integers(0, 2**32, (4, 1000))
    for seed in (0, 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF):
        ours = philox4x32(*torch.from_numpy(counters), torch.tensor(as_int64(seed)))
        assert np.array_equal(torch.stack(ours), np.stack(reference.philox(counters, seed)))


def test_arguments_broadcast_and_numbers_are_tensors():
    seed = torch.tensor([3, 4])
    words = philox4x32(torch.arange(5)[:, None], 7, torch.tensor(1), 2, seed)
    assert all(w.shape == (5, 2) for w in words)
    one = philox4x32(3, torch.tensor(7), 1, torch.tensor(2), seed[1])
    assert [int(w[3, 1]) for w in words] == [int(w) for w in one]


def test_counters_count_modulo_2_to_the_32():
    assert words_of((1, 2, 3, 4), 5) == words_of((1 + 2**32, 2 - 2**32, 3 + 2**33, 4), 5)


@pytest.mark.parametrize(
    ("seed", "bits"), [(0, 0), (2**63, -(2**63)), (2**64 - 1, -1), (2**64 + 5, 5), (-1, -1)]
)
def test_seeds_are_taken_modulo_2_to_the_64(seed, bits):
    assert as_int64(seed) == bits


def test_uniforms_are_exact_and_keep_their_bounds():
    words = torch.tensor([0, 1, 255, 256, 511, 512, 2**31, 2**32 - 1])
    assert uniform24(words).dtype == uniform23(words).dtype == torch.float32
    assert uniform24(words).tolist() == [int(w) // 256 / 2**24 for w in words]
    assert uniform23(words).tolist() == [(int(w) // 512 + 0.5) / 2**23 for w in words]
    assert uniform24(words).min() == 0
    assert uniform24(words).max() < 1
    assert uniform23(words).min() > 0
    assert uniform23(words).max() < 1


def test_normals_equal_the_reference_also_at_the_ends(reference):
    draw = np.random.default_rng(1)
    words = draw.integers(0, 2**32, (4, 100_000))
    ends = np.array([0, 511, 512, 2**31 - 1, 2**31, 2**32 - 513, 2**32 - 1])
    words[:, :49] = np.stack([np.repeat(ends, 7), np.tile(ends, 7)] * 2)
    expected = reference.box_muller(words.astype(np.uint64))
    blocks = tuple(torch.from_numpy(words))
    single, double = normals(blocks).numpy(), normals(blocks, torch.float64).numpy()
    assert single.dtype == np.float32
    assert np.all(np.abs(single - expected) <= 1e-5 + 1e-5 * np.abs(expected))
    np.testing.assert_allclose(double, expected, rtol=1e-12, atol=1e-12)
    assert np.abs(double).max() <= math.sqrt(2 * 24 * math.log(2))


def test_normals_are_normal_and_independent():
    count = 250_000
    words = philox4x32(torch.arange(count), 0, 0, 0, torch.tensor(11))
    n = normals(words).double().numpy()
    assert stats.kstest(n.ravel(), "norm").pvalue > 0.01
    # 5 standard errors of each estimate.
    assert np.abs(np.corrcoef(n.T) - np.eye(4)).max() < 5 / math.sqrt(count)
    assert np.abs(np.corrcoef((n**2).T) - np.eye(4)).max() < 5 / math.sqrt(count)
    tail = 2 * stats.norm.sf(3.5) * n.size
    assert abs((np.abs(n) > 3.5).sum() - tail) < 5 * math.sqrt(tail)


def test_words_are_uniform():
    words = philox4x32(0, torch.arange(100_000), 3, 1, torch.tensor(-5))
    for word in words:
        assert stats.kstest(uniform24(word).numpy(), "uniform").pvalue > 0.01
