import numpy as np
import pytest
import torch

from fastnt.kernels.philox.eager import as_int64, philox4x32

native = pytest.importorskip("fastnt._native")


@pytest.fixture(params=native.isas(), autouse=True)
def _isa(request):
    before = native.isa()
    native.set_isa(request.param)
    yield
    native.set_isa(before)


def words_of(counters, seed):
    counters = np.ascontiguousarray(counters, dtype=np.uint32)
    words = np.empty_like(counters)
    native.philox_words(seed, counters.shape[1], counters.ctypes.data, words.ctypes.data)
    return words


def normals_of(words):
    words = np.ascontiguousarray(words, dtype=np.uint32)
    normals = np.empty((words.shape[1], 4), dtype=np.float32)
    native.box_muller(words.shape[1], words.ctypes.data, normals.ctypes.data)
    return normals


def assert_near(normals, exact):
    assert np.all(np.abs(normals - exact) <= 1e-5 + 1e-5 * np.abs(exact))


def test_known_answers(known_answers):
    for case in known_answers["philox4x32_10"]:
        words = words_of(np.array(case["counter"])[:, None], case["seed"] % 2**64)
        assert words[:, 0].tolist() == case["words"]


def test_words_equal_the_definition():
    counters = np.random.default_rng(0).integers(0, 2**32, (4, 1000))
    for seed in (0, 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF):
        expected = philox4x32(*torch.from_numpy(counters), torch.tensor(as_int64(seed)))
        assert np.array_equal(words_of(counters, seed), torch.stack(expected).numpy())


@pytest.mark.parametrize("varying", [0, 1])
def test_normals_for_every_value_of_a_uniform(varying):
    """All 2^23 radii at one angle, and all angles at one radius."""
    values = np.arange(1 << 23, dtype=np.uint32) << 9
    worst = 0.0
    for part in np.split(values, 8):
        words = np.full((4, part.size // 2), 0x9D3A5C00, dtype=np.uint32)
        words[varying], words[2 + varying] = np.split(part, 2)
        u = ((words >> 9) + 0.5) / 2**23
        radius, angle = np.sqrt(-2 * np.log(u[::2])), 2 * np.pi * u[1::2]
        exact = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
        exact = exact.reshape(4, -1).T  # n0 n1 n2 n3
        normals = normals_of(words)
        assert_near(normals, exact)
        worst = max(worst, float(np.abs(normals - exact).max()))
    assert worst < 2e-6  # far inside the tolerance


def test_normals_at_the_ends_of_both_uniforms(reference):
    ends = np.array([0, 511, 512, 2**30, 2**31 - 1, 2**31, 3 * 2**30, 2**32 - 513, 2**32 - 1])
    pairs = np.stack([np.repeat(ends, 9), np.tile(ends, 9)] * 2)
    assert_near(normals_of(pairs), reference.box_muller(pairs.astype(np.uint64)))


def test_any_number_of_blocks():
    words = np.random.default_rng(1).integers(0, 2**32, (4, 100))
    whole = normals_of(words)
    for count in (0, 1, 3, 7, 17, 33):
        assert np.array_equal(normals_of(words[:, :count]), whole[:count])


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="no instruction set called mmx"):
        native.set_isa("mmx")
