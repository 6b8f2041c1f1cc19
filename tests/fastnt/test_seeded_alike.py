"""Ranks that were seeded alike: where the noise must differ between them, and where it must not."""

import json
import subprocess
import sys
from pathlib import Path

WORKER = """
import json, sys
import torch, torch.distributed as dist
from fastnt import NoisyL2Loss

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
student, teacher, index = torch.zeros(64, 8), torch.ones(64, 8), torch.arange(64)

def losses(given, call, compiled=False):
    torch.manual_seed(5)
    loss = NoisyL2Loss(0.5, 0.6, reduction="none", **given)
    if compiled:
        loss = torch.compile(loss, backend="aot_eager", fullgraph=True)
    return loss(student, teacher, **call).tolist()

print(json.dumps({
    "free": losses({}, {}),
    "compiled": losses({}, {}, compiled=True),
    "indexed": losses({}, {"index": index}),
    "seeded": losses({"seed": 3}, {}),
}))
"""
ALONE = """
import json, torch
from fastnt import NoisyL2Loss
torch.manual_seed(5)
loss = NoisyL2Loss(0.5, 0.6, reduction="none")
print(json.dumps(loss(torch.zeros(64, 8), torch.ones(64, 8)).tolist()))
"""


def test_ranks_seeded_alike_draw_their_own_noise_unless_it_is_keyed(tmp_path: Path) -> None:
    def start(script: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    ranks = [start(WORKER, str(rank), str(tmp_path / "store")) for rank in range(2)]
    first, second = (json.loads(rank.communicate(timeout=120)[0]) for rank in ranks)
    assert json.loads(start(ALONE).communicate(timeout=120)[0]) == first["free"]
    for case in ("free", "compiled"):
        noisy = [[value != 4 for value in rank[case]] for rank in (first, second)]
        assert 0 < sum(noisy[0]) < 64
        assert noisy[0] != noisy[1], case
    for case in ("indexed", "seeded"):
        assert first[case] == second[case], case
