r"""
Guidance on the ring
====================

Guidance pushes samples towards a class harder than the class itself does. On a ring of eight Gaussians, whose classes
are its components, one sees what is gained and what is lost.
"""

# %%
# The exact model; its condition ``label`` chooses a component, and -1 stands for none.
import matplotlib.pyplot as plt
import torch

import unidiff as ud

plt.style.use("tableau-colorblind10")
ring = ud.data.Ring()
model = ud.GaussianMixture(ud.VPSDE(), ring.means, 0.3**2)  # broad, so that the classes overlap

# %%
# Classifier-free guidance (Ho & Salimans 2022) goes from the unconditional prediction through the conditional one and
# on: :math:`\hat\varepsilon = \hat\varepsilon_\varnothing + s\,(\hat\varepsilon_y - \hat\varepsilon_\varnothing)`. At
# s = 0 the class is ignored, at s = 1 the samples are those of the class, beyond that they flee from all other classes.
scales = (0.0, 1.0, 3.0, 8.0)
label = torch.zeros(600, dtype=torch.long)
drawn = {scale: ud.sample(ud.ClassifierFree(model, scale), seeds=600, label=label).x for scale in scales}
figure, axes = plt.subplots(1, 4, figsize=(8, 2.4), layout="constrained")
for axis, (scale, x) in zip(axes, drawn.items()):
    axis.scatter(*x.T, s=2, color="C0")
    axis.scatter(*model.means.T, marker="+", color="k")
    axis.scatter(*model.means[:1].T, marker="*", s=80, color="C1", zorder=3)
    axis.set(title=f"s = {scale:g}", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), xticks=[], yticks=[], aspect="equal")

# %%
# The price: with the scale the spread shrinks and the mean moves outwards, away from the other classes. No scale but 1
# gives the distribution of the class.
print(" s   distance of the mean from the centre   standard deviation (0.3)")
for scale, x in drawn.items():
    print(f"{scale:2g}   {float((x.mean(0) - model.means[0]).norm()):36.2f}   {float(x.std(0).mean()):.2f}")

# %%
# A classifier of noisy data does the same from outside (Dhariwal & Nichol 2021). Here it is exact as well, and with the
# unconditional model and scale 1 both methods follow the same score.
level = model.process.level(0.4)
u = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
plain = ud.FromFunction(model.process, ud.Score(), lambda u, level: model(u, level).score, (2,))  # without labels
guided = ud.ClassifierGuidance(plain, ud.MixtureClassifier(model), 1.0)
conditional = model(u, level, label=label[:5])
assert torch.allclose(guided(u, level, label=label[:5]).score, conditional.score, atol=1e-9)

# %%
# Guidance is needed least where there is most noise and where there is none. ``GuidanceInterval`` (Kynkäänniemi et al.
# 2024) applies it in between; the samples keep more of their spread.
within = ud.GuidanceInterval(ud.ClassifierFree(model, 3.0), 0.1, 0.6)
x = ud.sample(within, seeds=600, label=label).x
print(f"scale 3 for 0.1 <= t <= 0.6 alone: standard deviation {float(x.std(0).mean()):.2f}")

# %%
# **Now you can** guide any conditional model, read a scale as what it trades, and hold a guidance method of your own
# against the exact one.
