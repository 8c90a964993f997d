"""A checkpoint of diffusers, sampled with nine solvers.

diffusers' pipelines draw with the sampler in their folder. Loaded here, the same folder is a denoiser, which any solver
asks. Nine deterministic ones start from the same noise: all follow one ordinary differential equation, so all go to the
same pictures, some sooner than others. First among them is DDIM on the scheduler's own times: the pictures are those of
diffusers' pipeline, number by number.

No weights are fetched: the model of 8x8 digits that comes with unidiff is exported, and then used as a stranger's. Or
give a checkpoint of your own, a folder or a name on the hub:

    python examples/diffusers_nine_solvers.py
    python examples/diffusers_nine_solvers.py --pipeline google/ddpm-cifar10-32 --count 4
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDIMPipeline

import unidiff as ud
from unidiff.interop.diffusers import export, load, load_grid
from unidiff.plot import save_table

SOLVERS = {
    "DDIM": ud.DDIM(),
    "Euler": ud.Euler(),
    "Heun": ud.Heun(),
    "DPM-Solver++ 2": ud.DPMSolver(order=2),
    "DPM-Solver 3": ud.DPMSolverSinglestep(order=3),
    "UniPC": ud.UniPC(),
    "DEIS": ud.DEIS(),
    "Adams-Bashforth": ud.AdamsBashforth(),
    "exponential Adams": ud.ExponentialAdams(),
}


def main() -> None:
    """Make or open a checkpoint, compare with diffusers' own sampler, draw with nine solvers, measure the distances."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", help="a folder or hub name of a DDPM or DDIM pipeline")
    parser.add_argument("--count", type=int, default=9, help="pictures")
    parser.add_argument("--steps", type=int, nargs=2, default=(10, 40), help="of a rough and of a good picture")
    parser.add_argument("--out", type=Path, default=Path("examples/figures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        place = arguments.pipeline or str(exported(Path(temporary)))
        # Unclipped: what diffusers clips on its way is no longer one equation for all.
        model = load(place, scheduler={"clip_sample": False})
        print(f"{place}: {model.process!r}")
        parity(place, model)
        compare(model, arguments.count, arguments.steps, arguments.out / "diffusers_nine_solvers.png")


def exported(folder: Path) -> Path:
    """A pipeline of diffusers that knows digits; nothing in the folder says where it is from."""
    directory = export("shipped:ddpm_digits", folder / "digits").directory
    shutil.rmtree(directory / "unidiff")
    return directory


def parity(place: str, model: ud.Denoiser) -> None:
    """Assert that DDIM draws what diffusers' own pipeline draws, from the noise of the same generator."""
    pipeline = DDIMPipeline.from_pretrained(place)
    pipeline.scheduler.register_to_config(clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(2, torch.Generator().manual_seed(0), num_inference_steps=20, output_type="pt").images
    u = torch.randn(2, *(model.shape or ()), generator=torch.Generator().manual_seed(0))
    times = load_grid(place, 20).times(model.process)
    with torch.no_grad():
        *_, last = ud.DDIM().trajectory(model, u, times, torch.randn_like)
    difference = float(((last.u / 2 + 0.5).clamp(0, 1) - theirs).abs().max())
    print(f"DDIM, 20 steps: {difference:.1e} from diffusers' own pictures at most, of pixels in [0, 1]")
    assert difference < 1e-4


def compare(model: ud.Denoiser, count: int, numbers: Sequence[int], path: Path) -> None:
    """Draw with each solver, and assert that all approach the same pictures."""
    exact = ud.sample(model, ud.ExponentialAdams(), ud.Tapered(100), seeds=count).x
    spread = float((exact - exact.mean(0)).square().mean().sqrt())
    print(f"RMS distance of pixels from 100 steps of exponential Adams; two pictures are {spread * 2**0.5:.2f} apart")
    print(f"{'solver':18} " + " ".join(f"{steps:>6} steps" for steps in numbers))
    cells: list[list[tuple[torch.Tensor, str] | None]] = [[], []]
    for name, solver in SOLVERS.items():
        drawn = [ud.sample(model, solver, ud.Tapered(steps), seeds=count).x for steps in numbers]
        errors = [float((x - exact).square().mean().sqrt()) for x in drawn]
        print(f"{name:18} " + " ".join(f"{error:12.4f}" for error in errors))
        for row, end in zip(cells, (0, -1)):
            row.append((drawn[end], f"{errors[end]:.3f}"))
        assert errors[-1] < errors[0], f"{name} does not approach the others"
        assert errors[-1] < 0.5 * spread, f"{name} draws other pictures"
    caption = "One checkpoint of diffusers, one noise, nine solvers: RMS distance from where all of them go"
    rows = [f"{numbers[0]} steps", f"{numbers[-1]} steps"]
    save_table(cells, rows, list(SOLVERS), path, caption)


if __name__ == "__main__":
    main()
