"""Names that the shell completes are those that the functions behind an option take."""

import importlib
from typing import get_args

import pytest
from typer.main import get_command

from medjax.ivim.averaging import Mean
from medjax.ivim.maps import Method
from medjax.ivim.noise import NoiseModel
from medjax.ivim.signal import Convention
from medjax.labels.errors import KINDS as ERRORS
from medjax.labels.scores import built_in
from medjax.labels.thresholds import THRESHOLDS
from medjax.pet.corrections import ADDITIVE_CONVENTIONS, MULTIPLICATIVE_CONVENTIONS
from medjax.pet.scanner import PRESETS
from medjax.phantoms import brain
from medjax.shortcuts.attribution import methods
from medjax.tools import biomarker_measures, biomarkers, pet_prior_images, register
from medjax.uncertainty import sample_intervals, sample_tests
from medjax.uncertainty.biomarkers import LAYOUTS
from medjax.uncertainty.body_surface import FORMULAS

TAKEN = {
    "pet reconstruct --scanner": PRESETS,
    "pet reconstruct --additive-convention": ADDITIVE_CONVENTIONS,
    "pet reconstruct --multiplicative-convention": MULTIPLICATIVE_CONVENTIONS,
    "pet simulate --scanner": PRESETS,
    "pet simulate --phantom": brain.ACTIVITY,
    "pet simulate --lesion-kind": brain.KINDS,
    "pet train-prior --kind": pet_prior_images.FAMILIES,
    "ivim fit --method": get_args(Method),
    "ivim fit --noise": get_args(NoiseModel),
    "ivim fit --convention": get_args(Convention),
    "ivim fit --average": ("none", *get_args(Mean)),
    "labels audit --threshold": THRESHOLDS,
    "labels simulate --error": ERRORS,
    "register images --kind": register.KINDS,
    "register images --similarity": register.SIMILARITIES,
    "precision --interval": sample_intervals.KINDS,
    "precision --overlap": sample_intervals.OVERLAPS,
    "precision --correction": sample_tests.CORRECTIONS,
    "biomarkers --labels": LAYOUTS,
    "biomarkers --papillary": biomarker_measures.PAPILLARY,
    "biomarkers --frames": biomarkers.FRAMES,
    "biomarkers --bsa": FORMULAS,
    "shortcuts audit --method": methods.METHODS,
    "shortcuts audit --sign": methods.SIGNS,
}


def completed(option: str, incomplete: str = "") -> set[str]:
    """What the shell offers after a command's option."""
    tool, *command, name = option.split()
    found = get_command(importlib.import_module(f"medjax.cli.{tool}").app)
    for part in command:
        found = found.commands[part]
    parameter = next(one for one in found.params if name in one.opts)
    return {
        item.value
        for item in parameter.shell_complete(found.make_context("medjax", [], resilient_parsing=True), incomplete)
    }


@pytest.mark.parametrize("option", TAKEN)
def test_names_of_an_option_are_completed(option):
    assert completed(option) == set(TAKEN[option])


def test_names_that_are_not_all_there_are_completed():
    assert completed("labels audit --score") < set(built_in())
    assert completed("pet reconstruct --method", "dds") == {"dds", "dds-cg"}
    assert completed("segment train --configuration") == {"3d_fullres", "2d"}
