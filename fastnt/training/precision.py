"""The arithmetic of training: float32, or mixed precision where the device has it in hardware."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Precision:
    """What matrix products and convolutions compute in; weights and losses stay float32."""

    dtype: torch.dtype = torch.float32  # or bfloat16, float16

    def autocast(self, device: torch.device) -> Any:
        """Return the context in which a forward pass runs."""
        mixed = self.dtype != torch.float32
        # No cache of cast weights: each is used once a pass, and none may outlive a CUDA graph.
        return torch.autocast(
            device.type, self.dtype if mixed else None, enabled=mixed, cache_enabled=False
        )

    @property
    def scales(self) -> bool:
        """Whether gradients must be lifted into the range of the type."""
        return self.dtype == torch.float16


FLOAT32 = Precision()


def choose_precision(device: torch.device, amp: bool | None) -> Precision:
    """Return the precision for ``--amp`` (True), ``--no-amp`` (False) or neither (None).

    bfloat16 where there are instructions for it; on a GPU without them float16; on a CPU without
    them float32, unless asked for.
    """
    if amp is False:
        return FLOAT32
    if device.type == "cuda":
        return Precision(torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16)
    fast = device.type == "cpu" and _cpu_has_bfloat16()
    return Precision(torch.bfloat16) if amp or fast else FLOAT32


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
