"""An epoch's order is a permutation that seed and epoch alone decide."""

import numpy as np
import pytest
import torch

from fastnt.data.order import epoch_order
from fastnt.kernels.philox.eager import ORDER, as_int64, philox4x32


@pytest.mark.parametrize("rows", [0, 1, 2, 97, 5000])
def test_every_row_comes_once(rows):
    order = epoch_order(3, 1, rows)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(rows))


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 5, -1])
def test_rows_are_sorted_by_their_own_words(seed):
    def words(row):
        drawn = philox4x32(0, row, 4, ORDER, torch.tensor(as_int64(seed)))
        return int(drawn[0]), int(drawn[1]), row

    assert epoch_order(seed, 4, 300).tolist() == sorted(range(300), key=words)


def test_more_rows_leave_the_others_in_their_order():
    longer = epoch_order(11, 2, 1000)
    assert longer[longer < 600].tolist() == epoch_order(11, 2, 600).tolist()


def test_seeds_and_epochs_differ():
    orders = {epoch_order(seed, epoch, 50).tobytes() for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_places_are_uniform():
    """Over many epochs every row comes early as often as late (mean place within 5 sigma)."""
    rows, epochs = 20, 400
    places = np.array([np.argsort(epoch_order(1, epoch, rows)) for epoch in range(epochs)])
    sigma = np.sqrt((rows**2 - 1) / 12 / epochs)
    assert np.all(np.abs(places.mean(0) - (rows - 1) / 2) < 5 * sigma)


def test_rows_that_draw_the_same_words_stay_in_their_order(monkeypatch):
    monkeypatch.setattr("fastnt.data.order.philox_words", lambda seed, counters: counters // 1000)
    counters = np.arange(1000)
    assert np.array_equal(epoch_order(0, 1, 1000), counters)


def test_the_last_bits_of_the_words_decide_too(monkeypatch):
    def words(seed, counters):
        return np.stack([counters[0], 1000 - counters[1], counters[2], counters[3]])

    monkeypatch.setattr("fastnt.data.order.philox_words", words)
    assert epoch_order(0, 1, 1000).tolist() == list(range(999, -1, -1))
