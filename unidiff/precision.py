"""The most precise floating type of a device."""

from __future__ import annotations

import torch

__all__ = ["precise"]


def precise(device: torch.device | str) -> torch.dtype:
    """float64 where the device has it, else float32 (MPS)."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64
