"""Where to compute, and in which number format."""

from __future__ import annotations

import torch

from unidiff.errors import ParameterError
from unidiff.training.settings import Precision

__all__ = ["arithmetic", "has_bf16", "resolve_device", "resolve_precision", "seed_device"]


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda`, `cuda:1` or `mps` means on this machine.

    Raises:
        ParameterError: If the name is unknown or the machine has no such device.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(backend for backend in ("cuda", "mps", "cpu") if available[backend])
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    allowed = ["auto", *(backend for backend, usable in available.items() if usable)]
    if device is None or not available.get(device.type, False) or (device.type != "cuda" and device.index is not None):
        raise ParameterError("device", f"must be one of {', '.join(allowed)} on this machine, got {name!r}")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise ParameterError("device", f"{name!r} does not exist; this machine has {torch.cuda.device_count()} GPU(s).")
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bf16, and does not emulate it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        # AVX-512 alone only emulates bf16, slower than fp32; these instructions multiply in it.
        return capability.startswith("AVX512") and bool(torch.cpu._is_avx512_bf16_supported())
    return False


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The number format of the network's arithmetic: auto is bf16 where the hardware multiplies in it, else fp32."""
    low = name == "bf16" or (name == "auto" and has_bf16(device))
    return torch.bfloat16 if low else torch.float32


def arithmetic(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """A context in which networks compute in `dtype`; states, weights and losses stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def seed_device(seed: int, device: torch.device) -> None:
    """As torch.manual_seed, but of the CPU and one device alone, whose states are put back after training."""
    torch.default_generator.manual_seed(seed)
    if device.type in ("cuda", "mps"):
        torch.get_device_module(device).manual_seed(seed)
