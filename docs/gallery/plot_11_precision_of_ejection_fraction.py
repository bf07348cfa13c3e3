"""
Precision of an ejection fraction
=================================

How large must a change of the ejection fraction (EF) be before it is more than error of measurement? Thirty simulated
hearts are scanned twice: Bland–Altman limits, repeatability coefficient (RC) and intraclass correlation (ICC).
"""

import matplotlib.pyplot as plt
import numpy as np

from medjax.metrics.agreement import bland_altman, icc
from medjax.metrics.repeatability import repeatability
from medjax.phantoms.cine import PROTOCOLS, scan_rescan
from medjax.uncertainty.biomarkers import ACDC, biomarkers, volumes
from medjax.uncertainty.volume_curve import Frames, volumes_at

# %%
# Scan and rescan of a subject have slice plans of their own, and between them the heart itself changes a little. The
# labels are those of an ideal reader, so what remains is where the slices lie and what the heart did.


def ejection_fraction(scan):
    curve = volumes(scan.labels, ACDC, scan.spacing)  # ml in every frame; label maps of your own go in here
    return biomarkers(*volumes_at(curve, Frames(scan.ed, scan.es)))["LVEF"]


pairs = [scan_rescan(seed=0, number=subject, protocol=PROTOCOLS["B"]) for subject in range(30)]
ef = np.array([[ejection_fraction(scan) for scan in pair] for pair in pairs])  # (subject, 2), in %
true_ef = np.array([[100 * (1 - scan.truth.lvesv / scan.truth.lvedv) for scan in pair] for pair in pairs])

# %%
# The RC is in points of EF: 95 % of repeated measurements differ by less. The ICC is relative to the differences
# between subjects, so the same scanner seems worse in a homogeneous group, here the middle half of the subjects.
limits = bland_altman(ef[:, 1], ef[:, 0])
rc = {"measured": repeatability(*ef.T), "heart's true\nchange alone": repeatability(*true_ef.T)}
middle = ef[np.abs(ef.mean(1).argsort().argsort() - 14.5) < 7.5]
iccs = {f"all\n({len(ef)})": icc(ef), f"middle half\n({len(middle)})": icc(middle)}

plt.style.use("tableau-colorblind10")
figure, axes = plt.subplots(1, 3, figsize=(11, 4.2), width_ratios=(2.2, 1, 1), layout="constrained")
axes[0].scatter(ef.mean(1), ef[:, 1] - ef[:, 0], zorder=3)
for name in ("lower", "bias", "upper"):
    axes[0].axhline(getattr(limits, name), color="C1")
    axes[0].axhspan(*getattr(limits, f"{name}_interval"), color="C1", alpha=0.2, lw=0)
axes[0].set(xlabel="mean EF of scan and rescan, %", ylabel="rescan − scan, points of EF")
axes[0].set_title(f"Bland–Altman: bias {limits.bias:+.1f}, limits {limits.lower:+.1f} and {limits.upper:+.1f}")
rows = ({name: (one.rc, *one.rc_interval) for name, one in rc.items()}, {name: one[:3] for name, one in iccs.items()})
for axis, row, title in zip(axes[1:], rows, ("RC, points of EF", "ICC(2,1)"), strict=True):
    value, low, high = np.array([*row.values()]).T
    axis.errorbar([*row], value, [value - low, high - value], fmt="o", capsize=5)
    axis.set(title=title, ylabel=title, xlim=(-0.5, 1.5), ylim=(0, None))
plt.show()

# %%
# *Left: limits of agreement and bias with 95 % confidence intervals (bands); in the two largest differences a basal
# slice counts as ventricle in one scan only. Right: the ICC of the middle half is lower, the scanner is the same.*
