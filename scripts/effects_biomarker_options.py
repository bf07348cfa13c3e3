"""What each option of the cardiac biomarkers changes: simulated short-axis cines, perfect labels, no model, no patient.

    python scripts/effects_biomarker_options.py [--subjects 20] [--seed 0] [--samples 20]

Protocol A at end-diastole (ED) and end-systole (ES). Labels count the papillary muscles as cavity, as ACDC's do.
Printed: option minus default in the biomarker's unit, mean ± standard deviation over subjects; with samples, that of
their means, and the standard deviation of the ejection fraction over samples, mean over subjects, default → option.

- Frames: volumes of the continuous anatomy in the protocol's 25 frames, each with normal noise of 3 %.
- Members: the endocardium lies normally distributed 0.7 mm outwards, the same at ED and ES, and by a smooth field 1 mm
  further, another one at ED and ES. Three of ten also leave out their most basal slice, at ED and ES.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from medjax.phantoms.cine import PROTOCOLS, CineScan, cine, random_heart
from medjax.phantoms.cine_anatomy import DENSITY, Heart
from medjax.phantoms.cine_cycle import contraction
from medjax.uncertainty.basal_slices import drop_basal_slices
from medjax.uncertainty.biomarkers import ACDC, Volumes, biomarkers, volumes
from medjax.uncertainty.papillary_muscles import assign_papillary
from medjax.uncertainty.volume_curve import Frames, ed_es_frames, volumes_at

NAMES = ("LVEDV", "LVESV", "LVEF", "LVM")
HEADINGS = ("LVEDV, ml", "LVESV, ml", "LVEF, points", "LVM, g", "sd of LVEF over samples, points")
PROTOCOL = PROTOCOLS["A"]
NOISE = 0.03  # of a frame's volume
COMMON_MM, LOCAL_MM, SMOOTH_MM, LEFT_OUT = 0.7, 1.0, 8.0, 0.3
MARGIN = 5  # pixels about the heart


class Effect(NamedTuple):
    """Differences of the biomarkers, and the standard deviation of the ejection fraction: NaN without samples."""

    difference: Float[np.ndarray, " biomarker"]
    default_sd: float
    option_sd: float


def effect(option: Float[np.ndarray, "*sample biomarker"], default: Float[np.ndarray, "*sample biomarker"]) -> Effect:
    """Effect of an option on one subject."""
    means = [values.reshape(-1, len(NAMES)).mean(axis=0) for values in (option, default)]
    sds = [float(v[:, 2].std(ddof=1)) if v.ndim == 2 else np.nan for v in (default, option)]
    return Effect(means[0] - means[1], *sds)


def measured(ed: Volumes, es: Volumes) -> Float[np.ndarray, "*sample biomarker"]:
    """The biomarkers that the table shows."""
    found = biomarkers(ed, es)
    return np.stack([found[name] for name in NAMES], axis=-1)


def of_labels(
    labels: Int[np.ndarray, "x y z *sample frame"], scan: CineScan, spacing: tuple[float, float, float]
) -> Float[np.ndarray, "*sample biomarker"]:
    """Biomarkers of label maps at a scan's frames."""
    return measured(*volumes_at(volumes(labels, ACDC, spacing), Frames(scan.ed, scan.es)))


def cropped(scan: CineScan) -> CineScan:
    """A scan without what is far from the heart."""
    x, y = ndimage.find_objects((scan.labels > 0).any(axis=(2, 3)).astype(int))[0]
    box = tuple(slice(max(axis.start - MARGIN, 0), axis.stop + MARGIN) for axis in (x, y))
    return scan._replace(image=scan.image[box], labels=scan.labels[box], papillary=scan.papillary[box])


def label_options(scan: CineScan) -> dict[str, Effect]:
    """Effects of rules on labels, and of the slice distance."""

    def each(rule: Callable[[np.ndarray, int], np.ndarray], labels: np.ndarray = scan.labels) -> np.ndarray:
        return np.stack([rule(labels[..., n], n) for n in range(labels.shape[-1])], axis=-1)

    without = np.where(scan.papillary, ACDC.myocardium, scan.labels)
    maps = {
        "papillary: myocardium (true muscles)": without,
        "papillary: myocardium (rule, image)": each(
            lambda one, n: assign_papillary(one, ACDC, "myocardium", scan.image[..., n])
        ),
        "papillary: myocardium (rule, no image)": each(lambda one, _: assign_papillary(one, ACDC, "myocardium")),
        "papillary: cavity (rule)": each(lambda one, _: assign_papillary(one, ACDC, "cavity")),
        "papillary: cavity (rule), of labels that exclude them": each(
            lambda one, _: assign_papillary(one, ACDC, "cavity"), without
        ),
        "basal slices: enclosed by 0.5 or more": each(lambda one, _: drop_basal_slices(one, ACDC, 0.5)),
        "basal slices: enclosed by 0.9 or more": each(lambda one, _: drop_basal_slices(one, ACDC, 0.9)),
    }
    default = of_labels(scan.labels, scan, scan.spacing)
    thin = of_labels(scan.labels, scan, (*scan.spacing[:2], scan.thickness))
    found = {name: effect(of_labels(labels, scan, scan.spacing), default) for name, labels in maps.items()}
    return found | {"slice distance: thickness without the gap": effect(thin, default)}


def frame_options(rng: np.random.Generator, heart: Heart, samples: int) -> dict[str, Effect]:
    """Effects of choosing ED and ES on noisy curves, against the true frames."""
    s = contraction(heart, np.arange(PROTOCOL.frames) / PROTOCOL.frames)
    true = [
        heart.lvedv + s * (heart.lvesv - heart.lvedv),
        heart.lvm / DENSITY * (1 - s * heart.compression),
        heart.rvedv + s * (heart.rvesv - heart.rvedv),
    ]
    curves = Volumes(*(one * (1 + NOISE * rng.standard_normal((samples, len(s)))) for one in true))
    default = measured(*volumes_at(curves, ed_es_frames(true[0])))
    chosen = {
        "frames: chosen on the mean curve": ed_es_frames(curves.lv.mean(axis=0)),
        "frames: chosen in each sample": ed_es_frames(curves.lv),
    }
    return {name: effect(measured(*volumes_at(curves, frames)), default) for name, frames in chosen.items()}


def endocardial_distance(lv: Bool[np.ndarray, "x y"], pixel: float) -> Float[np.ndarray, "x y"]:
    """Signed distance from the endocardium in the plane, mm, negative inside; infinite without a cavity."""
    if not lv.any():
        return np.full(lv.shape, np.inf)
    outside, inside = (np.asarray(ndimage.distance_transform_edt(mask, pixel)) for mask in (~lv, lv))
    return np.where(lv, 0.5 * pixel - inside, outside - 0.5 * pixel)


def member_labels(rng: np.random.Generator, scan: CineScan, samples: int) -> Int[np.ndarray, "x y z sample frame"]:
    """Label maps of members whose endocardium is displaced, see the head of this file."""
    lv, pixel = scan.labels == ACDC.lv, scan.spacing[0]
    distance = np.empty(lv.shape)
    for z, n in np.ndindex(lv.shape[2:]):
        distance[:, :, z, n] = endocardial_distance(lv[:, :, z, n], pixel)
    noise = rng.standard_normal((*lv.shape[:3], samples, lv.shape[3]), np.float32)
    local = ndimage.gaussian_filter(noise, SMOOTH_MM / pixel, axes=(0, 1), mode="wrap")
    shift = rng.normal(0, COMMON_MM, (samples, 1)) + local * (LOCAL_MM / local.std())
    solid = np.where(lv, ACDC.myocardium, scan.labels)
    return np.where(distance[..., None, :] < shift, ACDC.lv, solid[..., None, :])


def without_basal(
    labels: Int[np.ndarray, "x y z sample frame"], scan: CineScan, members: Bool[np.ndarray, " sample"]
) -> Int[np.ndarray, "x y z sample frame"]:
    """Label maps of which some members leave out the left ventricle in the most basal slice with a cavity."""
    out = labels.copy()
    for n in range(labels.shape[-1]):
        first = int(np.argmax((scan.labels[..., n] == ACDC.lv).any(axis=(0, 1))))
        part = out[:, :, first, members, n]
        out[:, :, first, members, n] = np.where(part == ACDC.rv, part, 0)
    return out


def member_options(rng: np.random.Generator, scan: CineScan, samples: int) -> dict[str, Effect]:
    """Effects of pairing ED and ES, and of the mean mask, against the mean over paired members."""
    labels = member_labels(rng, scan, samples)
    fewer = without_basal(labels, scan, rng.random(samples) < LEFT_OUT)
    found = dict[str, Effect]()
    for note, own in (("", labels), (", some without the basal slice", fewer)):
        curve = volumes(own, ACDC, scan.spacing)
        ed, es = volumes_at(curve, Frames(scan.ed, scan.es))
        paired = measured(ed, es)
        other = Volumes(*(np.roll(values, 1, axis=-1) for values in es))
        mean = np.stack([(own == code).mean(axis=3) for code in range(4)]).argmax(axis=0)
        found[f"ED and ES: of different members{note}"] = effect(measured(ed, other), paired)
        found[f"mean mask: its biomarkers{note}"] = effect(of_labels(mean, scan, scan.spacing), paired)
    return found


def row(name: str, effects: list[Effect]) -> str:
    """One line of the table."""
    differences = np.stack([one.difference for one in effects])
    cells = [f"{m:+z.2f} ± {s:.2f}" for m, s in zip(differences.mean(0), differences.std(0, ddof=1), strict=True)]
    default, option = (float(np.mean([getattr(one, name) for one in effects])) for name in ("default_sd", "option_sd"))
    spread = "–" if np.isnan(option) else f"{default:.2f} → {option:.2f}"
    return f"| {name} | {' | '.join(cells)} | {spread} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=20, help="Number of simulated subjects, 2 or more.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    parser.add_argument("--samples", type=int, default=20, help="Samples of a subject, 2 or more.")
    args = parser.parse_args()
    table, defaults = dict[str, list[Effect]](), list[np.ndarray]()
    for number in range(args.subjects):
        streams = [np.random.default_rng((args.seed, number, stream)) for stream in (0, 2, 4, 5)]
        heart = random_heart(streams[0])
        scan = cropped(cine(streams[1], heart, PROTOCOL, "ed_es"))  # the first scan of scan_rescan
        defaults.append(of_labels(scan.labels, scan, scan.spacing))
        found = label_options(scan) | frame_options(streams[2], heart, args.samples)
        for name, one in (found | member_options(streams[3], scan, args.samples)).items():
            table.setdefault(name, []).append(one)
    values = np.stack(defaults)
    print(f"{args.subjects} subjects, {args.samples} samples; labels as they are, mean ± sd:", end=" ")
    mean, sd = values.mean(axis=0), values.std(axis=0, ddof=1)
    print(", ".join(f"{name} {m:.1f} ± {s:.1f}" for name, m, s in zip(NAMES, mean, sd, strict=True)))
    print(f"\n| option − default | {' | '.join(HEADINGS)} |\n|{'---|' * (len(HEADINGS) + 1)}")
    for name, effects in table.items():
        print(row(name, effects))


if __name__ == "__main__":
    main()
