"""A small autoencoder of each kind, and the smallest recipe that trains one."""

from __future__ import annotations

from typing import Any

import unidiff as ud

KINDS: list[ud.codec.AutoencoderConfig] = [
    ud.codec.AutoencoderKL(latent_channels=3, channels=(8, 16)),
    ud.codec.VQModel(latent_channels=3, channels=(8, 16), codes=16),
    ud.codec.AutoencoderDC(latent_channels=4, channels=(8, 16)),
    ud.codec.AutoencoderTiny(latent_channels=3, width=8, levels=2),
]
VAE: dict[str, Any] = {
    "data": {"type": "Digits"},
    "codec": {"type": "AutoencoderKL", "channels": [8, 8], "latent_channels": 2},
    "training": {
        **{"steps": 8, "batch": 8, "lr": 0.01, "precision": "fp32", "log_every": 3, "checkpoint_every": 3},
        **{"preview_every": 3, "tensorboard": False},
    },
}
