"""Small valid inputs of every command, and the commands that take them."""

import shutil
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from medjax.diffusion.prior import Prior, PriorSettings
from medjax.diffusion.prior_file import _built_in, example_inputs, save_prior
from medjax.diffusion.sde import vp
from medjax.io.interfile import write_sinogram
from medjax.io.itk_transforms import write_itk_affine
from medjax.io.nifti import read_nifti, write_nifti
from medjax.models.model import Network
from medjax.pet.scanner import preset
from medjax.registration import network_file
from medjax.tools.classifier_file import save_classifier
from tests.page_data import write_example_data
from tests.pet.test_io import listmode_file

NETWORKS = """
import jax.numpy as jnp
from medjax.models import Model

def init(key, *inputs):
    return {"w": jnp.ones((28, 28, 2))}

def apply(params, images, key=None):
    return jnp.tensordot(images[..., 0], params["w"], ((1, 2), (0, 1)), precision="highest")

classifier = Model(init, apply)
"""


SINGLE = ("biomarkers", "precision", "run", "sweep", "experiments", "new")  # commands of one word


class Command(NamedTuple):
    """A valid command and its input files and folders, each a part of an argument."""

    name: str
    arguments: tuple[str, ...]
    inputs: tuple[str, ...]  # files and folders that it reads
    tolerant: bool = False  # it may go on from what is left of a damaged input


def command(text: str, inputs: str = "", tolerant: bool = False) -> Command:
    words = tuple(text.split())
    name = " ".join(words[: 1 if words[0] in SINGLE else 2])
    return Command(name, words, tuple(inputs.split()), tolerant)


PET = "pet reconstruct {} --iterations 1 --subsets 1 --size 24 --voxel-mm 9 -o image.nii.gz"
COMMANDS = [
    command(PET.format("scan.npz"), "scan.npz"),
    command(
        PET.format("scan.npz") + " --method map-em --mr t1.nii.gz --mu mu.nii.gz --corrections normalisation",
        "t1.nii.gz mu.nii.gz",
    ),
    command(
        PET.format("sinogram.hs") + " --scanner mmr --additive additive.hs",
        "sinogram.hs sinogram.s additive.hs additive.s",
    ),
    command(PET.format("scan.l") + " --scanner mmr", "scan.l scan.l.hdr"),
    command(PET.format("scan.npz").replace("9", "11") + " --method dds-cg --prior prior.npz --steps 4", "prior.npz"),
    command("pet simulate --activity subject_1.nii.gz --scanner ring_2d --planes 1 -o new.npz", "subject_1.nii.gz"),
    command(
        "pet train-prior subject_1.nii.gz subject_2.nii.gz --size 16 --steps 1 --batch 1 -o trained",
        "subject_1.nii.gz subject_2.nii.gz",
    ),
    command("pet train-prior subject_1.nii.gz --size 16 --steps 1 --batch 1 --start start.npz -o trained", "start.npz"),
    command(
        "ivim fit dwi.nii.gz --bvals dwi.bval --mask lungs.nii.gz --labels regions.nii.gz -o maps",
        "dwi.nii.gz dwi.bval lungs.nii.gz regions.nii.gz",
    ),
    command(
        "ivim fit dwi.nii.gz --bvals dwi.bval --segment lung_model --network brief.py:pointwise -o maps",
        "lung_model lung_model/plan.json lung_model/dataset.json lung_model/fold_0/params.npz",
    ),
    command(
        "segment train Dataset004_Hippocampus -o model --fold 0 --base-width 2 --patch 8,8,8 --epochs 1 --iterations 1",
        "Dataset004_Hippocampus Dataset004_Hippocampus/dataset.json "
        "Dataset004_Hippocampus/imagesTr/hippocampus_0_0000.nii.gz "
        "Dataset004_Hippocampus/labelsTr/hippocampus_1.nii.gz",
    ),
    command(
        "segment predict trained_model Dataset004_Hippocampus/imagesTs --network brief.py:pointwise --no-mirror -o new",
        "trained_model trained_model/plan.json trained_model/keep.json "
        "Dataset004_Hippocampus/imagesTs Dataset004_Hippocampus/imagesTs/hippocampus_5_0000.nii.gz brief.py",
    ),
    command(
        "segment predict trained_model Dataset004_Hippocampus/imagesTs --network brief.py:pointwise --no-mirror -o new",
        "trained_model/fold_0",
        tolerant=True,  # folds that are not trained yet
    ),
    command(
        "segment evaluate predictions truth --labels 1,2,3 -o summary.json",
        "predictions predictions/case_03.png truth/case_05.png",
    ),
    command(
        "segment evaluate predicted Dataset004_Hippocampus/labelsTs -o summary.json",
        "Dataset004_Hippocampus/labelsTs/hippocampus_5.nii.gz Dataset004_Hippocampus/dataset.json",
    ),
    command(
        "labels audit images masks --size 16 --epochs 4 --network brief.py:pointwise -o audited",
        "images masks images/case_03.png masks/case_04.png brief.py",
    ),
    command(
        "shortcuts audit --ts ts.npz --ba ba.npz --sa sa.npz --images images.npz --regions grid:7x7 -o audited",
        "ts.npz ba.npz images.npz",
    ),
    command(
        "shortcuts audit --ts net.npz --ba net_ba.npz --sa net_sa.npz --images images.npz --regions grid:7x7 "
        "--method gradient --network networks.py:classifier -o audited",
        "net.npz networks.py",
    ),
    command("shortcuts fairness test.csv --score p --attribute sex -o fairness", "test.csv"),
    command(
        "shortcuts flips predictions truth --logits logits --groups groups.csv -o flips.csv",
        "predictions truth logits groups.csv predictions/case_00.png logits/case_01.npy",
    ),
    command("biomarkers scan_maps.csv --labels acdc -o new.csv", "scan_maps.csv maps/scan_0_0.nii.gz"),
    command(
        "precision scan.csv rescan.csv --truth truth.csv --resamples 10 -o precise", "scan.csv rescan.csv truth.csv"
    ),
    command(
        "register images fixed.nii.gz moving.nii.gz --kind affine --iterations 1,1,1 --mask fixed_labels.nii.gz "
        "--fixed-labels fixed_labels.nii.gz --moving-labels moving_labels.nii.gz -o warped.nii.gz",
        "fixed.nii.gz moving.nii.gz fixed_labels.nii.gz",
    ),
    command(
        "register images fixed.nii.gz moving.nii.gz --iterations 1,1,1 --network registration.npz -o warped.nii.gz",
        "registration.npz",
    ),
    command(
        "register apply moving_pet.nii.gz fixed.nii.gz -t affine.txt -t field.nii.gz -o warped.nii.gz",
        "moving_pet.nii.gz fixed.nii.gz affine.txt field.nii.gz",
    ),
    command("register points landmarks.csv -t affine.txt -o moved.csv", "landmarks.csv affine.txt"),
    command(
        "run mine:tiny --workdir work",
        "work work/config.json work/environment.json work/timings.json work/metrics.json work/report.html "
        "work/checkpoints work/checkpoints/level_10.npz",
        tolerant=True,
    ),
    command("run mine:tiny --workdir new", "experiments/mine.py configs/mine.py configs experiments"),
    command("sweep mine:tiny --over seed=0,1 --workdir swept", "configs/mine.py"),
    command("experiments", "configs/mine.py experiments/mine.py configs", tolerant=True),
    command("new other"),
    command("ivim simulate -o new"),
    command("labels simulate -o new"),
    command("segment simulate -o new"),
]
MADE = [  # once, of the valid inputs
    "new mine",
    "run mine:tiny --workdir work",
    "segment train Dataset004_Hippocampus -o trained_model --fold all --network brief.py:pointwise --patch 8,8,8 "
    "--epochs 1 --iterations 1",
    "biomarkers scan_maps.csv --labels acdc -o scan.csv",
    "biomarkers rescan_maps.csv --labels acdc -o rescan.csv",
    "register images fixed.nii.gz moving.nii.gz --iterations 1,1,1 --field field.nii.gz -o registered.nii.gz",
]


def write_inputs(folder: Path) -> None:
    """Write the inputs, but for those that commands make (`MADE`)."""
    write_example_data(folder)
    shape = preset("mmr").sinogram_shape
    draw = np.random.default_rng(0)
    near = abs(np.arange(shape[1]) - shape[1] / 2) < 40  # bins of lines of response through the object
    prompts, background = draw.poisson(0.5 * near + np.zeros((3, *shape[:2]))), np.full((3, *shape[:2]), 0.01)
    for name, array in {"sinogram": prompts, "additive": background}.items():
        write_sinogram(folder / f"{name}.hs", array, scanner="Siemens mMR", max_ring_difference=1)
    listmode_file(folder, [(int(s), int(v), 172, True) for s, v in draw.integers(0, 64, (400, 2))])
    head = read_nifti(folder / "t1.nii.gz")
    write_nifti(folder / "mu.nii.gz", np.where(head.array > 0, 0.0096, 0.0), head.affine)
    write_itk_affine(folder / "affine.txt", np.diag([1.0, 1.0, 1.1, 1.0]))
    (folder / "networks.py").write_text(NETWORKS)
    for name in ("net", "net_ba", "net_sa"):
        save_classifier(folder / f"{name}.npz", {"w": draw.normal(size=(28, 28, 2))}, "networks.py:classifier")
    shutil.copytree(folder / "Dataset004_Hippocampus" / "labelsTs", folder / "predicted")
    shutil.copy(str(files("medjax.diffusion") / "weights" / "noise_free.npz"), folder / "start.npz")
    save_prior(folder / "prior.npz", small_prior())
    settings = network_file.NetworkSettings(widths=(8, 8))
    model = network_file.built_in(settings)
    params = parameters(model, network_file.example_inputs(settings))
    network_file.save(folder / "registration.npz", network_file.TrainedNetwork(model, params, settings))


def small_prior() -> Prior:
    """A prior that was never trained."""
    settings = PriorSettings(widths=(8, 8), attention=(1,), size=16, voxel_mm=11.0)
    model = _built_in(settings)
    sde = vp(settings.beta_min, settings.beta_max)
    return Prior(parameters(model, example_inputs(settings)), 0.5, sde, model, settings)


def parameters(model: Network, inputs: tuple[jax.Array, ...]) -> dict:
    like = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    return jax.tree.map(lambda one: jnp.full(one.shape, 0.01, one.dtype), like)
