"""Tiny files of the names that the commands on the pages of docs/ read, and cheap networks to train on them."""

from pathlib import Path

import nibabel
import numpy as np

from medjax.io.counts import Counts, write_counts
from medjax.io.nifti import write_nifti
from medjax.io.nnunet_raw import Scan, write_dataset
from medjax.ivim.signal import Ivim, signal
from medjax.pet.scanner import preset, with_rings
from medjax.phantoms.echo import echo
from medjax.running.arrays import save_arrays
from medjax.running.parts import Part, load_part
from medjax.segmentation.plan import Case, fingerprint, plan
from medjax.tools.segment_model import ModelDescription, choose_network, write_description
from tests.segmentation.blobs import blobs

PART = """
import jax.numpy as jnp
from medjax.iterate import static_partial
from medjax.models import Model

def init(classes, key, images, *conditions):
    return jnp.linspace(-1, 1, images.shape[-1] * classes).reshape(images.shape[-1], classes)

def apply(params, images, *conditions, key=None):
    return images @ params

def pointwise(of):
    return Model(static_partial(init, getattr(of, "classes", of)), apply)

def scale(key, x, *conditions):
    return jnp.ones(())

def scaled(params, x, *conditions, key=None):
    return params * x

levels = Model(scale, scaled)
"""


def write_example_data(folder: Path) -> None:
    """A tiny file or folder of every name that the pages' commands read."""
    from PIL import Image  # of medjax's extra `data`

    data, draw, affine = echo(seed=0, number=16, size=16), np.random.default_rng(0), np.diag([2.0, 2.0, 2.0, 1.0])
    labels = data.labels.astype(np.uint8)
    pictures = {"images": (255 * data.images[..., 0]).astype(np.uint8), "masks": labels, "truth": labels}
    pictures["predictions"] = np.where(draw.random(labels.shape) < 0.1, (4 - labels) % 4, labels).astype(np.uint8)
    for name, arrays in pictures.items():
        (folder / name).mkdir()
        for k, array in enumerate(arrays):
            Image.fromarray(array).save(folder / name / f"case_{k:02d}.png")
    (folder / "logits").mkdir()
    for k, label in enumerate(pictures["predictions"]):
        np.save(folder / "logits" / f"case_{k:02d}.npy", (3 * np.eye(4)[label] + draw.random((16, 16, 4))).astype("f"))
    (folder / "groups.csv").write_text("image,group\n" + "".join(f"case_{k:02d},{k % 4}\n" for k in range(16)))

    write_audit_data(folder, draw)
    b = np.array([0, 10, 30, 50, 75, 100, 200, 400, 700, 1000], np.float32)
    tissue = Ivim(*(np.full((4, 4, 2), value, np.float32) for value in (100.0, 0.3, 1.7e-3, 22e-3)))
    frames = np.moveaxis(np.asarray(signal(tissue, b)), 0, -1)
    noisy = frames + draw.normal(size=frames.shape).astype("f")
    nibabel.save(nibabel.Nifti1Image(noisy, affine), folder / "dwi.nii.gz")
    (folder / "dwi.bval").write_text(" ".join(f"{value:g}" for value in b))
    for name in ("lungs", "regions"):
        write_nifti(folder / f"{name}.nii.gz", np.ones((4, 4, 2)), affine)

    cases = [(f"hippocampus_{seed}", blobs(seed, 8 if seed < 5 else 10)) for seed in range(6)]
    scans = [Scan(name, case.image, case.labels, case.spacing, affine) for name, case in cases]
    dataset = folder / "Dataset004_Hippocampus"
    write_dataset(dataset, scans[:5], ("MRI",), ("background", "Anterior", "Posterior"), test=scans[5:])
    (dataset / "labelsTs").mkdir()
    write_nifti(dataset / "labelsTs" / "hippocampus_5.nii.gz", scans[5].labels, affine, np.uint8)

    shape = with_rings(preset("ring_2d"), 1).sinogram_shape
    seen = np.abs(np.arange(shape[1]) - shape[1] // 2) < 45  # bins within 90 mm
    counts = draw.poisson(np.where(seen, 5.0, 2.0)[:, None], shape).astype(np.float32)
    write_counts(folder / "scan.npz", Counts(counts, np.full(shape, 2.0), np.full(shape, 0.02), "ring_2d"))
    for subject in (1, 2):
        write_nifti(folder / f"subject_{subject}.nii.gz", 1 + draw.random((24, 24, 20)), np.diag([2.5, 2.5, 2.5, 1]))
    centered = np.diag([18.0, 18.0, 8.0, 1.0])
    centered[:3, 3] = -135, -135, -12
    write_nifti(folder / "t1.nii.gz", 1 + draw.random((16, 16, 4)), centered)
    (folder / "brief.py").write_text(PART)
    write_lung_model(folder / "lung_model", load_part(f"{folder / 'brief.py'}:pointwise", "--network"))
    write_precision_data(folder, draw)
    write_registration_data(folder)


def write_lung_model(folder: Path, network: Part) -> None:
    """Model folder of a network that takes voxels above the mean for lungs."""
    case = Case(np.arange(512, dtype=np.float32).reshape(8, 8, 8, 1), np.ones((8, 8, 8), np.int32), (2.0, 2.0, 2.0))
    own = plan(fingerprint([case], 2, ("MR",)), base_width=4, patch=(8, 8, 8))
    dataset = {"channel_names": ["MR"], "labels": {"background": 0, "lungs": 1}}
    dataset |= {"file_ending": ".nii.gz", "settings": {"seed": 0}}
    write_description(folder, ModelDescription(own, choose_network(network, own)[1], dataset))
    (folder / "fold_0").mkdir()
    save_arrays(folder / "fold_0" / "params.npz", np.array([[-1.0, 1.0]], np.float32))


def write_registration_data(folder: Path) -> None:
    """A pair of images of other grids with labels, and landmarks."""
    for name, shape, voxel, shift in (("fixed", (16, 15, 14), 2.0, 0.0), ("moving", (14, 14, 15), 2.2, 2.0)):
        affine = np.diag([voxel, voxel, voxel, 1.0])
        affine[:3, 3] = -voxel * (np.array(shape) - 1) / 2
        points = np.moveaxis(np.indices(shape), 0, -1) * voxel + affine[:3, 3] - shift
        inside = 1 / (1 + np.exp(6 * (((points / [12, 9, 7]) ** 2).sum(-1) - 1)))
        write_nifti(folder / f"{name}.nii.gz", (100 + 5 * points[..., 0]) * inside, affine)
        write_nifti(folder / f"{name}_pet.nii.gz", inside, affine)
        write_nifti(folder / f"{name}_labels.nii.gz", (inside > 0.5).astype(np.uint8), affine, np.uint8)
    (folder / "landmarks.csv").write_text("name,x,y,z\nfront,0,8,0\n")


def write_audit_data(folder: Path, draw: np.random.Generator) -> None:
    """Attribution maps of three networks, their images, and two tables of predictions."""
    ids = [f"image_{k:02d}" for k in range(24)]
    common = draw.random((24, 28, 28))
    for name in ("ts", "ba", "sa"):
        np.savez(folder / f"{name}.npz", maps=(common + draw.random((24, 28, 28))).astype("f"), ids=ids)
    np.savez(folder / "images.npz", images=common.astype("f"), ids=ids)
    np.savez(folder / "pneumoniamnist.npz", train_images=np.zeros((2, 28, 28), np.uint8))  # parsed only
    for name in ("test", "other"):
        lines = [f"s{k},p{k // 2},{k % 2},{k // 2 % 2},{k // 4 % 2},{draw.random():.3f}" for k in range(40)]
        (folder / f"{name}.csv").write_text("scan,patient,label,sex,site,p\n" + "\n".join(lines) + "\n")


def write_precision_data(folder: Path, draw: np.random.Generator) -> None:
    """Label maps of four subjects, scan and rescan, three samples each, with their lists; and a table of the truth."""
    (folder / "maps").mkdir()
    x, y = np.meshgrid(np.arange(20) - 6, np.arange(20) - 10, indexing="ij")
    right = (x > 6) & (x < 11) & (np.abs(y) < 6)
    for name in ("scan", "rescan"):
        lines = list[str]()
        for subject, sample in np.ndindex(4, 3):
            frames = list[np.ndarray]()
            for radius in (4.0 + subject / 3, 3.0):  # of ED and ES
                disc = np.hypot(x, y) + draw.normal(0, 0.1)
                labels = np.where(disc < radius, 3, np.where(disc < radius + 1.5, 2, right))
                frames.append(np.repeat(labels[:, :, None], 3, 2))
            file = f"maps/{name}_{subject}_{sample}.nii.gz"
            cine = np.stack(frames, -1).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(cine, np.diag([2.0, 2.0, 8.0, 1.0])), folder / file)
            lines.append(f"P{subject},{sample},{file}")
        (folder / f"{name}_maps.csv").write_text("subject,sample,cine\n" + "\n".join(lines) + "\n")
    (folder / "truth.csv").write_text("subject,LVEF_percent\n" + "".join(f"P{k},{50 + k}\n" for k in range(4)))
