"""A teacher's logits with noise: what `noisy_logits` refuses."""

from typing import Any

import numpy as np
import pytest
import torch

from fastnt import noisy_logits

NOISE: Any = {"alpha": 0.5, "sigma": 0.6, "seed": 3}
LOGITS = torch.randn(4, 3)


@pytest.mark.parametrize("impl", ["eager", "auto"])
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (-1, ValueError, r"teacher_id must be at least 0 and below 2\*\*24, got -1"),
        (2**24, ValueError, "teacher_id must be at least 0 and below"),
        (1.5, TypeError, "teacher_id must be an integer, got 1.5"),
        (True, TypeError, "teacher_id must be an integer, got True"),
        (torch.tensor(1), TypeError, "teacher_id must be an integer, got tensor"),
    ],
)
def test_a_wrong_teacher_id_is_one_sentence(
    wrong: Any, error: Any, message: str, impl: Any
) -> None:
    with pytest.raises(error, match=message):
        noisy_logits(LOGITS, **NOISE, teacher_id=wrong, impl=impl)


@pytest.mark.parametrize("impl", ["eager", "auto"])
def test_every_allowed_teacher_id_has_noise_of_its_own(impl: Any) -> None:
    numbers: Any = (0, np.int64(1), 2**24 - 1)
    noisy = [noisy_logits(LOGITS, **NOISE | {"alpha": 1}, teacher_id=n, impl=impl) for n in numbers]
    assert len({tuple(x.flatten().tolist()) for x in noisy}) == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": LOGITS.long()}, TypeError, "^logits must be a dense .* got torch.int64"),
        ({"logits": [[1.0]]}, TypeError, "^logits must be a tensor of logits, got list"),
        ({"logits": torch.tensor(1.0)}, ValueError, r"^logits must have the shape \(..., C\)"),
        ({"dim": 2}, ValueError, r"dim must be a dimension of the logits \(4, 3\)"),
        ({"index": torch.arange(4, device="meta")}, ValueError, "index must be on the logits' cpu"),
        ({"alpha": torch.ones((), device="meta")}, ValueError, "alpha must be on the logits' cpu"),
        ({"logits": LOGITS.to("meta"), "impl": "native"}, ValueError, "the logits are on meta"),
    ],
)
def test_messages_name_what_the_caller_passed(change: Any, error: Any, message: str) -> None:
    if change.get("impl") == "native":
        pytest.importorskip("fastnt._native")
    with pytest.raises(error, match=message) as raised:
        noisy_logits(**({"logits": LOGITS} | NOISE | change))
    assert "student" not in str(raised.value)
