"""What must give the same on every device: each public solver, process, guidance, objective and measurement once.

Each case is a function of (device, steps): it builds its model there, runs, and returns what it made. In float64,
except where a network is trained. `steps` counts what the case loops over. The cases are found by construction: a new
solver, process, operator, posterior or objective becomes one by being public.
"""

from __future__ import annotations

import atexit
import copy
import itertools
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from contrast import AttributePairs
from torch import Tensor, nn

import unidiff as ud
from unidiff.data.base import TensorSource
from unidiff.data.captioned import CaptionedSource
from unidiff.errors import ParameterError
from unidiff.objective.base import Objective
from unidiff.objective.contrastive import InfoNCE
from unidiff.objective.cross_entropy import CrossEntropy
from unidiff.recipe.registry import PUBLIC
from unidiff.training.loop import accelerator_for

F64 = torch.float64
MEANS = [[-0.6, 0.3], [0.5, -0.2]]
LABELS = torch.tensor([0, 1, -1])  # on the CPU, whatever the model's device
Task = Callable[[torch.device, int], Any]


class Case(NamedTuple):
    """A name, the task, and whether the host may look at values inside its loop."""

    name: str
    task: Task
    adaptive: bool = False


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _saved_noise() -> Path:
    """A file of noise for each of the points."""
    path = Path(tempfile.mkdtemp()) / "noise.npy"
    atexit.register(shutil.rmtree, path.parent)
    np.save(path, torch.randn(40, 2, generator=generator(1)).numpy())
    return path


POINTS = torch.randn(40, 2, generator=generator(), dtype=F64)
SMALL: dict[str, dict[str, Any]] = {
    "DDPM": {"T": 50},
    "RenormalizedHeat": {"shape": (2,), "blur_max": 0.5},
    "Blurring": {"shape": (2,), "blur_max": 2.0},
    "InverseHeat": {"shape": (2,), "blur_max": 0.8, "levels": 20},
    "AnnealedLangevin": {"steps_per_level": 1, "step_size": 1e-9},
    "Langevin": {"steps": 1, "step_size": 1e-9},
    "Resampling": {"repeats": 2, "jump": 1},
    "ProbabilityFlow": {"rtol": 1e-3, "atol": 1e-3},
    "EDMStochastic": {"churn": 1.0},
    "HeatBlur": {"shape": (2,), "blur": 0.7},
    "BlockMean": {"shape": (2,), "factor": 2},
    "Inpainting": {"known": (1, 0)},
    "RandomProjection": {"shape": (2,), "count": 1},
    "ImportanceSampled": {"history": 1},  # full after one step
    "Pairs": {"path": str(_saved_noise())},
}


def instances(base: type) -> list[Any]:
    """One of each public class, small."""
    return [cls(**SMALL.get(name, {})) for name, cls in PUBLIC.choices(base).items()]


PROCESSES = [process.fit([POINTS]) for process in instances(ud.Process)]
SCALAR = [process for process in PROCESSES if not process.basis.shape]
MODES = [process for process in PROCESSES if process.basis.shape]
BLURRING = next(process for process in MODES if isinstance(process, ud.Blurring))


def mixture(process: ud.Process, device: torch.device) -> ud.GaussianMixture:
    return ud.GaussianMixture(process, MEANS, 0.04).to(device)


def sampled(model: ud.Denoiser, solver: ud.Solver, device: torch.device, steps: int, **cond: Any) -> Tensor:
    return ud.sample(model, solver, ud.Uniform(steps), (2,), 3, dtype=F64, device=device, **cond).x


def runs(solver: ud.Solver, process: ud.Process) -> bool:
    try:
        solver.check(process)
    except ParameterError:
        return False
    return True


def solver_cases() -> list[Case]:
    """Each solver on one process with one SNR and one whose modes differ, in turn; each process with two solvers."""
    cases = []

    def add(solver: ud.Solver, process: ud.Process) -> None:
        name = f"{type(solver).__name__}{getattr(solver, 'order', '')}-{type(process).__name__}"
        task = lambda device, steps: sampled(mixture(process, device), solver, device, steps)  # noqa: E731
        cases.append(Case(name, task, adaptive=hasattr(solver, "rtol")))

    solvers = instances(ud.Solver)
    solvers += [
        ud.UniPC(3),
        ud.DPMSolver(3),
        ud.DPMSolver(2, eta=1.0),
        ud.DPMSolverSinglestep(2, eta=1.0),
        ud.DDIM(eta=0.5),
        ud.EDMStochastic(churn=0.0),
    ]
    for number, solver in enumerate(solvers):
        for family in (SCALAR, MODES):
            turned = [family[(number + i) % len(family)] for i in range(len(family))]
            if process := next((process for process in turned if runs(solver, process)), None):
                add(solver, process)
    for process in PROCESSES:
        for solver in (ud.Ancestral(), ud.ExponentialAdams()):
            add(solver, process)
    return list({case.name: case for case in cases}.values())


def _posterior(cls: Any, operator: ud.inverse.Operator, y: Tensor, options: dict[str, Any], model: Any) -> ud.Denoiser:
    return cls(model, operator, y, 0.3, **options)


def guidance_cases() -> list[Case]:
    """Each guided model, told labels that are on the CPU, with a scale for each sample where it takes one."""
    scale = torch.tensor([0.5, 1.0, 2.0])
    image, strength = torch.tensor([0.4, 0.0], dtype=F64), torch.tensor([1.0, 0.0])
    first, seen = ud.inverse.Inpainting((1, 0)), torch.tensor([[0.4]], dtype=F64)
    made: dict[str, Callable[[Any], ud.Denoiser]] = {
        "ClassifierFree": lambda model: ud.ClassifierFree(model, scale),
        "AutoGuidance": lambda model: ud.AutoGuidance(model, ud.GaussianMixture(model.process, MEANS, 0.3), 1.5),
        "ClassifierGuidance": lambda model: ud.ClassifierGuidance(model, ud.MixtureClassifier(model), 1.5, chunk=2),
        "CLIPGuidance": lambda model: ud.CLIPGuidance(model, AttributePairs(model), 1.5, chunk=2),
        "UniversalGuidance": lambda model: ud.UniversalGuidance(model, lambda x: x.square().sum(1), 1.5, chunk=2),
        "GuidanceInterval": lambda model: ud.GuidanceInterval(ud.ClassifierFree(model, 2.5), 0.2, 0.7),
        "RescaledGuidance": lambda model: ud.RescaledGuidance(ud.ClassifierFree(model, 2.5)),
        "DynamicThreshold": lambda model: ud.DynamicThreshold(ud.ClassifierFree(model, 2.5), 0.5),
        "Replacement": lambda model: ud.Replacement(model, image, strength),
        "Rescheduled": lambda model: ud.Rescheduled(model, ud.CosineVP(t_min=0.05)),
        "Counted": lambda model: ud.Counted(model),
        "Split": lambda model: ud.Split(model, model, 0.5),
    }
    for name, cls in PUBLIC.choices(ud.inverse.Posterior).items():
        options = {"iterations": 2} if name == "MomentMatching" else {}
        made[name] = partial(_posterior, cls, first, seen, options)
    cases = []
    for name, wrap in made.items():
        for process in (ud.VPSDE(), BLURRING):
            if process.basis.shape and name not in (
                "ClassifierFree",
                "Replacement",
                "ClassifierGuidance",
                "CLIPGuidance",
            ):
                continue

            def task(device: torch.device, steps: int, wrap: Any = wrap, process: ud.Process = process) -> Tensor:
                model = wrap(ud.GaussianMixture(process, MEANS, 0.04)).to(device)
                return sampled(model, ud.DDIM(), device, steps, label=LABELS)

            cases.append(Case(f"{name}-{type(process).__name__}", task))
    return cases


def operator_cases() -> list[Case]:
    """Each operator: applied, transposed, and in a posterior on each process it runs on."""

    def parts(operator: ud.inverse.Operator) -> Task:
        def task(device: torch.device, steps: int) -> list[Tensor]:
            x = POINTS[:3].to(device)
            out = []
            for _ in range(steps):
                y = operator.apply(x)
                out = [y, operator.transpose(y), operator.gram(y, torch.exp)]
            return out

        return task

    def posterior(operator: ud.inverse.Operator) -> Task:
        def task(device: torch.device, steps: int) -> Tensor:
            y = operator.apply(POINTS[:1])
            model = ud.inverse.MomentMatching(mixture(ud.VPSDE(), device), operator, y, 0.3, iterations=2).to(device)
            return sampled(model, ud.DDIM(), device, steps)

        return task

    operators = instances(ud.inverse.Operator)
    return [
        Case(f"{type(operator).__name__}-{make.__name__}", make(operator))
        for operator in operators
        for make in (parts, posterior)
    ]


def accelerator_on(device: torch.device, settings: ud.Training) -> Accelerator:
    """An accelerator of any torch device, one that accelerate has no name for included."""
    if device.type in ("cpu", "cuda"):
        return accelerator_for(settings, str(device))
    accelerator = accelerator_for(settings, "cpu")
    accelerator.state.device = device
    return accelerator


def trained(
    model: Any,
    source: Any,
    objective: Any,
    device: torch.device,
    steps: int,
    optimizer: ud.Optimizer | None = None,
    lr: float = 1e-2,
    **options: Any,
) -> Tensor:
    """The averaged weights after some steps, flat."""
    settings = ud.Training(
        steps=steps,
        batch=8,
        lr=lr,
        precision="fp32",
        log_every=1000,
        checkpoint_every=1000,
        optimizer=optimizer or ud.AdamW(),
    )
    result = ud.train(
        model, source, objective, settings, accelerator=accelerator_on(device, settings), report=print, **options
    )
    return torch.cat([weight.detach().flatten() for weight in result.backbone.parameters()])


def objective_cases() -> list[Case]:
    """A training by each objective, on one process of each family that it takes."""
    cases = []
    source = TensorSource(POINTS.float(), "points", labels=torch.arange(40) % 2)
    for name, cls in PUBLIC.choices(Objective).items():
        for process in (ud.DDPM(50), BLURRING):
            try:
                cls().check(process)
            except ParameterError:
                continue

            def task(device: torch.device, steps: int, cls: Any = cls, process: ud.Process = process) -> Tensor:
                torch.manual_seed(0)
                backbone = ud.MLP((2,), width=8, depth=1, classes=2, learned_variance=cls.learns_variance)
                model = ud.NeuralDenoiser(process, ud.X0(), backbone)
                loss = cls().with_teacher(copy.deepcopy(model).to(device)) if cls.needs_teacher else cls()
                return trained(model, source, loss, device, steps, conditioning=ud.Labels(0.2))

            cases.append(Case(f"train-{name}-{type(process).__name__}", task))

    def denoising(objective: Objective, optimizer: ud.Optimizer | None = None) -> Task:
        def task(device: torch.device, steps: int) -> Tensor:
            torch.manual_seed(0)
            model = ud.NeuralDenoiser(ud.DDPM(5), ud.X0(), ud.MLP((2,), width=8, depth=1))
            return trained(model, source, objective, device, steps, optimizer)

        return task

    couplings = instances(ud.Coupling)
    varied = [ud.Denoising(times=times) for times in instances(ud.TimeSampling)]
    for objective in (*varied, *(ud.Denoising(coupling=coupling) for coupling in couplings)):
        parts = f"{type(objective.times).__name__}-{type(objective.coupling).__name__}"
        cases.append(Case(f"train-{parts}", denoising(objective)))
    for optimizer in (ud.Muon(), ud.Adafactor(), ud.ScheduleFree()):
        cases.append(Case(f"train-{optimizer.kind}", denoising(ud.Denoising(), optimizer)))

    def classifier(device: torch.device, steps: int) -> Tensor:
        torch.manual_seed(0)
        model = ud.NeuralClassifier(ud.VPSDE(), ud.MLPEncoder((2,), width=8, depth=1, classes=2))
        return trained(model, source, CrossEntropy(), device, steps, conditioning=ud.Labels(0.0))

    def contrastive(device: torch.device, steps: int) -> Tensor:
        torch.manual_seed(0)
        words, draws = (ud.Caption(2, ("a", "b")),), torch.Generator().manual_seed(0)
        captions = torch.tensor([[0, 1], [1, 0], [1, -1]]).repeat(4, 1)
        images = CaptionedSource(torch.randn(12, 1, 8, 8, generator=draws), captions, "images", "none")
        network = ud.ContrastiveUNet((1, 8, 8), 4, 8, text_width=8, heads=2, depth=1, conditions=words)
        model = ud.NeuralContrastive(ud.VPSDE(), network)
        # Adam's steps are ratios: where a gradient is mere rounding, so is its step, of up to lr.
        return trained(model, images, InfoNCE(), device, steps, lr=1e-4, conditioning=ud.Captions(0.0))

    return [*cases, Case("train-classifier", classifier), Case("train-contrastive", contrastive)]


def measurement_cases() -> list[Case]:
    """Likelihood, bound, encoding, editing, evaluation and closed forms."""
    x = POINTS[:3] / 4

    def likelihood(trace: ud.DivergenceEstimator) -> Task:
        def task(device: torch.device, steps: int) -> Tensor:
            model = mixture(ud.VPSDE(), device)
            return ud.log_likelihood(model, x.to(device), trace, rtol=1e-3, atol=1e-3, label=LABELS).log_prob

        return task

    def bound(process: ud.Process) -> Task:
        def task(device: torch.device, steps: int) -> Tensor:
            grid = ud.Uniform(steps)
            return ud.variational_bound(mixture(process, device), x.to(device), grid, batch=3, label=LABELS).log_prob

        return task

    def learned_bound(device: torch.device, steps: int) -> Tensor:
        torch.manual_seed(0)
        network = ud.MLP((2,), width=8, depth=1, learned_variance=True).double()
        model = ud.NeuralDenoiser(ud.DDPM(50), ud.Eps(), network).to(device)
        return ud.variational_bound(model, x.to(device), ud.Uniform(steps), batch=3).log_prob

    def coded(process: ud.Process) -> Task:
        def task(device: torch.device, steps: int) -> list[Tensor]:
            model, solver, grid = mixture(process, device), ud.ExponentialAdams(), ud.Uniform(steps)
            latent = ud.encode(model, x.to(device), solver, grid, label=LABELS)
            varied = ud.variations(model, x[0].to(device), 0.3, solver, grid, 3, label=LABELS)
            return [latent, ud.decode(model, latent, solver, grid, label=LABELS), varied]

        return task

    def edited(process: ud.Process) -> Task:
        def task(device: torch.device, steps: int) -> list[Tensor]:
            model, image, grid = mixture(process, device), x[0].to(device), ud.Uniform(steps)
            known, spread = torch.tensor([1, 0]), torch.tensor([0.3, 1.0])
            return [
                ud.inpaint(model, image, known, ud.DDIM(), grid, 3, label=LABELS).x,
                ud.edit(model, image, 0.6, ud.Ancestral(), grid, 3, label=LABELS).x,
                ud.edit(model, image, spread, ud.DDIM(), grid, 3, label=LABELS).x,
            ]

        return task

    def flow(device: torch.device, steps: int) -> list[Tensor]:
        models = [mixture(process, device) for process in (ud.VPSDE(), BLURRING)]
        options: dict[str, Any] = {"most_steps": 8 * steps, "device": device, "tolerance": 1e-30}
        return [ud.evaluation.reference_flow(model, (2,), 3, **options).x for model in models]

    def compared(device: torch.device, steps: int) -> Tensor:
        table = ud.compare(
            mixture(ud.VPSDE(), device), ["ddim", "ancestral"], [4], (2,), 20, device=device, most_steps=32
        )
        return torch.tensor([row.rms or 0.0 for row in table.rows], dtype=F64)

    def energy(device: torch.device, steps: int) -> Tensor:
        return torch.tensor(
            ud.evaluation.energy_distance(POINTS[:20].to(device), POINTS[20:].to(device)).value, dtype=F64
        )

    def features(device: torch.device, steps: int) -> list[Tensor]:
        network, draws = ud.UNetEncoder((1, 8, 8), 8, classes=3), generator()
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.3, generator=draws)
        classifier = ud.NeuralClassifier(ud.FlowMatching(), network).to(device).eval()
        x = torch.randn(12, 1, 9, 9, generator=draws)
        found = ud.evaluation.FeatureNetwork("tiny", "", classifier).of(x.to(device).split(12 // steps))
        return [found.values, *([] if found.probabilities is None else [found.probabilities])]

    def mean(device: torch.device, steps: int) -> Tensor:
        return ud.evaluation.mean_prediction(
            mixture(ud.VPSDE(), device), (2,), 3, dtype=F64, device=device, label=LABELS
        )

    def empirical(device: torch.device, steps: int) -> list[Tensor]:
        models = [ud.Empirical(process, POINTS).to(device) for process in (ud.VPSDE(), BLURRING)]
        ends = [sampled(model, ud.DDIM(), device, steps) for model in models]
        noise, uniform = torch.ones(3, 2, dtype=F64, device=device), torch.full((3,), 0.4, dtype=F64, device=device)
        return [*ends, *(model.draw(noise, uniform) for model in models)]

    def full(device: torch.device, steps: int) -> list[Tensor]:
        covariance = torch.tensor([[0.05, 0.02], [0.02, 0.05]], dtype=F64)
        model = ud.GaussianMixture(ud.VPSDE(), MEANS, covariance).to(device)
        noise, uniform = torch.ones(3, 2, dtype=F64, device=device), torch.full((3,), 0.4, dtype=F64, device=device)
        return [sampled(model, ud.DDIM(), device, steps), model.draw(noise, uniform)]

    def heat(device: torch.device, steps: int) -> list[Tensor]:
        process = ud.PerSampleHeat(ud.RenormalizedHeat((2, 3), 1.0))
        data = torch.randn(4, 1, 2, 3, generator=generator())
        model = ud.PerSamplePosterior(process, data).to(device)
        grid = ud.Uniform(steps)
        return [
            solver.sample(model, grid, seeds=2, device=device) for solver in (ud.PosteriorDDIM(), ud.VelocityFlow())
        ]

    two = (ud.VPSDE(), BLURRING)
    return [
        *(Case(f"likelihood-{type(t).__name__}", likelihood(t), True) for t in instances(ud.DivergenceEstimator)),
        *(Case(f"{make.__name__}-{type(p).__name__}", make(p)) for make in (bound, coded, edited) for p in two),
        *(Case(task.__name__, task) for task in (learned_bound, flow, energy, features, mean, empirical, full, heat)),
        Case("compared", compared, True),
    ]


def network_cases() -> list[Case]:
    """Each kind of network behind a sampler, told labels, and two of them in a cascade; in float64."""
    made: dict[str, Callable[[], nn.Module]] = {
        "UNet": lambda: ud.UNet((1, 8, 8), width=8, multipliers=(1, 2), blocks=1, attention=(4,), classes=3),
        "DiT": lambda: ud.DiT((1, 8, 8), patch=4, width=8, depth=1, heads=2, classes=3),
        **{
            f"DiT {type(block).__name__} {type(own).__name__}": partial(
                ud.DiT, (1, 8, 8), patch=4, width=8, depth=1, heads=2, classes=3, block=block, attention=own
            )
            for block, own in zip(instances(ud.BlockDesign), itertools.cycle(instances(ud.Attention)))
        },
        "MLP": lambda: ud.MLP((1, 8, 8), width=8, classes=3),
        "UNet of signals": lambda: ud.UNet((1, 8), width=8, multipliers=(1, 2), blocks=1, attention=(4,), classes=3),
        "UNet of videos": lambda: ud.UNet(
            (1, 2, 4, 4), width=8, multipliers=(1,), blocks=1, classes=3, factorized=True
        ),
        "DiT of volumes": lambda: ud.DiT((1, 2, 4, 4), width=8, depth=3, heads=2, classes=3, axial=True),
    }

    def sampler(make: Callable[[], nn.Module]) -> Task:
        def task(device: torch.device, steps: int) -> Tensor:
            torch.manual_seed(0)
            model = ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), make().double()).to(device)
            guided = ud.ClassifierFree(model, 2.0)
            return ud.sample(guided, ud.DDIM(), ud.Uniform(steps), seeds=3, dtype=F64, device=device, label=LABELS).x

        return task

    captions, sequences = ud.Tokens(length=4, vocabulary=9), ud.Embedding((3, 4))
    tokens = torch.tensor([[1, 2, 0, 0], [3, 0, 0, 0], [4, 5, 6, 7]])
    words: dict[str, Any] = {"tokens": tokens, "embedding": torch.ones(3, 3, 4)}

    def attended(make: Callable[..., nn.Module]) -> Task:
        def task(device: torch.device, steps: int) -> Tensor:
            torch.manual_seed(0)
            network = make(conditions=(captions, sequences)).double()
            model = ud.ClassifierFree(ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), network).to(device), 2.0)
            return ud.sample(model, ud.DDIM(), ud.Uniform(steps), seeds=3, dtype=F64, device=device, **words).x

        return task

    told = {
        "UNet": attended(partial(ud.UNet, (1, 8, 8), width=8, multipliers=(1, 2), blocks=1, attention=(4,))),
        "DiT": attended(partial(ud.DiT, (1, 8, 8), patch=4, width=8, depth=1, heads=2)),
        "MMDiT": attended(partial(ud.MMDiT, (1, 8, 8), patch=4, width=8, depth=2, heads=2)),
    }

    def prompts(device: torch.device, steps: int) -> list[Tensor]:
        torch.manual_seed(0)
        network = ud.UNet((1, 4, 4), width=8, multipliers=(1,), blocks=1, attention=(4,), conditions=(captions,))
        model = ud.ClassifierFree(ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), network.double()).to(device), 2.0)
        grid, first, longer = ud.Uniform(steps), torch.tensor([1, 2]), torch.tensor([1, 5, 2])
        found = ud.prompt_to_prompt(model, first, longer, ud.DDIM(), grid, 2, until=0.0, device=device, dtype=F64)
        return [found.source, found.edited]

    def cascade(device: torch.device, steps: int) -> list[Tensor]:
        torch.manual_seed(0)
        nets = ud.MLP((1, 4, 4), width=8, classes=3), ud.UNet((1, 8, 8), width=8, multipliers=(1,), blocks=1, image=1)
        small, large = (ud.NeuralDenoiser(ud.DDPM(), ud.Eps(), net.double()).to(device) for net in nets)
        first = ud.Stage(small, ud.DDIM(), ud.Uniform(steps))
        second = ud.Stage(large, ud.Ancestral(), ud.Uniform(steps), ud.SuperResolution(2, noise=0.1))
        chain = ud.Cascade([first, second])
        return [stage.x for stage in chain.sample(3, dtype=F64, device=device, label=LABELS).stages]

    return [
        *(Case(f"network-{name}", sampler(make)) for name, make in made.items()),
        *(Case(f"attention-{name}", task) for name, task in told.items()),
        Case("prompt-to-prompt", prompts),
        Case("cascade", cascade),
    ]


CASES = [
    *solver_cases(), *guidance_cases(), *operator_cases(), *objective_cases(), *measurement_cases(), *network_cases(),
]  # fmt: skip


def on_cpu(out: Any) -> list[Tensor]:
    """What a task made, as CPU tensors in float64."""
    return [value.detach().cpu().double() for value in (out if isinstance(out, list) else [out])]
