"""
Register two brains
===================

The MR of one person is aligned to that of another, by an affine map and then by a deformable field. Both people are
simulated: MNI152 anatomy, deformed by a field of their own each, so that the right answer is known.
"""

import jax.numpy as jnp
import matplotlib.pyplot as plt

from medjax.phantoms.head_anatomies import mni152
from medjax.phantoms.multi_subject import multi_subject, on_grid, tissue_labels, true_displacement
from medjax.registration.affine_registration import register_affine
from medjax.registration.evaluation import dice, target_error_mm
from medjax.registration.greedy import register
from medjax.registration.transforms import AffineTransform, Grid, to_displacement
from medjax.registration.warp import compose, jacobian_determinant, warp, warp_labels

# %%
# 4 mm voxels: the T1 inside the brain, and labels of grey matter, white matter and the rest.
shape, voxel_mm = (48, 56, 44), 4.0
people = list(multi_subject(4, 2, [mni152(2.0)], strength=0.6))
heads = [on_grid(one, voxel_mm, shape) for one in people]
fixed, moving = (jnp.asarray(head.t1 * head.brain_mask) for head in heads)
fixed_labels, moving_labels = (jnp.asarray(tissue_labels(head)) for head in heads)
grid, mask = Grid(shape, heads[0].affine), jnp.asarray(heads[0].brain_mask, float)

# %%
# The affine map becomes a field too, and both fields are composed, so that the image is interpolated once.
matrix = register_affine(fixed, grid, moving, grid, factors=(2,), iterations=(50,))
affine = to_displacement((AffineTransform(matrix),), grid, grid)
found = register(fixed, warp(moving, affine, outside=0.0), factors=(2, 1), iterations=(50, 20), inverse_iterations=0)
fields = {"as it is": jnp.zeros_like(affine), "affine": affine, "deformable": compose(affine, found.displacement)}

# %%
# Dice is the mean over tissues, the error the mean distance from the known field. Where the Jacobian determinant of the
# deformable field is 2, the moving brain has twice the volume of the fixed one; below 0 it would fold.
truth, middle = jnp.asarray(true_displacement(*people, shape, voxel_mm)), shape[2] // 2 + 3
jacobian = jnp.where(mask > 0, jacobian_determinant(fields["deformable"]), jnp.nan)
limits = {"gray": (0, 1.1), "RdBu_r": (-1, 1), "PiYG": (0, 2)}
labels = {
    "gray": "T1 (arbitrary units)",
    "RdBu_r": "warped − fixed (arbitrary units)",
    "PiYG": "volume, moving / fixed",
}
rows = [[("fixed", fixed, "gray")], [("Jacobian determinant", jacobian, "PiYG")]]
for name, field in fields.items():
    warped, tissue = warp(moving, field, outside=0.0), warp_labels(moving_labels, field, outside=0)
    overlap, error = dice(tissue, fixed_labels, 4).mean(), target_error_mm(field, truth, (voxel_mm,) * 3, mask)
    rows[0].append((f"moving, {name}", warped, "gray"))
    rows[1].append((f"Dice {overlap:.2f}, error {error:.1f} mm", warped - fixed, "RdBu_r"))
figure, axes = plt.subplots(2, 4, figsize=(11, 7.6), layout="constrained")
for panel, (title, image, colors) in zip(axes.flat, rows[0] + rows[1], strict=True):
    low, high = limits[colors]
    drawn = panel.imshow(image[..., middle].T, origin="lower", cmap=colors, vmin=low, vmax=high)
    panel.set(title=title, xticks=[], yticks=[])
    figure.colorbar(drawn, ax=panel, label=labels[colors], shrink=0.8, location="bottom")
plt.show()
