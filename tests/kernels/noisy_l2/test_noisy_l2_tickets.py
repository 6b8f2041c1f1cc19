"""The cells of launches that several threads make at once."""

import threading
import time

import torch

from fastnt.kernels.noisy_l2 import tickets


def test_threads_share_the_cells_of_a_device(monkeypatch):
    made = []

    class Slow(tickets.Tickets):
        def __init__(self, device):
            time.sleep(0.05)
            super().__init__(device)
            made.append(self)

    monkeypatch.setattr(tickets, "Tickets", Slow)
    monkeypatch.setattr(tickets, "_of_device", {})
    threads = [threading.Thread(target=tickets.take, args=(3, torch.device("cpu"))) for _ in "123"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_launches_of_graphs_share_no_cell():
    ours = tickets.Tickets(torch.device("cpu"))
    first, second = (ours.take(count, 0, True) for count in (3, 2))
    assert second.data_ptr() == first.data_ptr() + 3 * first.element_size()
