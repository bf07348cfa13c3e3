"""Labels of dataset.json: classes, regions and an ignore label by nnU-Net's rules, and what breaks them."""

import json
import warnings
from pathlib import Path

import pytest

from medjax.errors import DataError
from medjax.io.nnunet_labels import labels_content, parse_labels, parse_structure, structure_text

FILE = Path("dataset.json")
TUMOR = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def parsed(labels, order=None):
    return parse_labels(FILE, {"labels": labels, **({} if order is None else {"regions_class_order": order})})


def test_classes_are_sorted_by_number():
    labels = parsed({"spleen": 2, "liver": 1, "background": 0, "ignore": 3})
    assert list(labels.structures.items()) == [("background", 0), ("liver", 1), ("spleen", 2)]
    assert labels.classes == 3 and labels.ignore == 3 and labels.regions == () and labels.order == ()
    one = parsed({"background": 0, "liver": [1]})
    assert one.foreground == {"liver": 1}  # a list of one is a class, as in nnU-Net


def test_regions_keep_their_order():
    labels = parsed({**TUMOR, "ignore": 4}, [1, 2, 3])
    assert list(labels.foreground.items()) == [("whole", (1, 2, 3)), ("core", (2, 3)), ("enhancing", 3)]
    assert labels.regions == ((1, 2, 3), (2, 3), (3,)) and labels.order == (1, 2, 3) and labels.classes == 4
    assert labels.class_names == ["background", "label 1", "label 2", "enhancing"] and labels.ignore == 4


def test_there_and_back():
    for labels in (parsed({**TUMOR, "ignore": 4}, [1, 2, 3]), parsed({"background": 0, "a": 1, "b": 2})):
        again = parse_labels(FILE, json.loads(json.dumps(labels_content(labels))))
        assert again == labels and list(again.structures) == list(labels.structures)
    for structure in (3, (3,), (1, 2, 3)):
        assert parse_structure(structure_text(structure)) == structure


@pytest.mark.parametrize(
    ("message", "labels", "order"),
    [
        ("background is None; expected", {"a": 1}, None),
        ("background is .0.; expected 'background': 0", {"background": [0], "a": 1}, None),
        ("without gaps, two or more", {"background": 0}, None),
        ("without gaps", {"background": 0, "a": 2}, None),
        ("without gaps", {"background": 0, "a": 1, "b": 1}, None),
        ("without gaps", {"background": 0, "whole": [1, 3]}, [1]),
        ("label 'a' is x; expected a number", {"background": 0, "a": "x"}, None),
        ("label 'a' is True; expected", {"background": 0, "a": True}, None),
        (r"label 'a' is \[\]; expected", {"background": 0, "a": []}, None),
        ("label 'a' is .1, 1.; expected every number once", {"background": 0, "a": [1, 1]}, [1]),
        ("'ignore' is 1; expected 3, one above", {"background": 0, "ignore": 1, "a": 1, "b": 2}, None),
        ("'ignore' is .2.; expected 2", {"background": 0, "a": 1, "ignore": [2]}, None),
        ("regions, and no regions_class_order; expected a number from 1 to 3 for each of 3 regions", TUMOR, None),
        (r"regions_class_order \[1, 2\]; expected a number from 1 to 3 for each of 3", TUMOR, [1, 2]),
        (r"regions_class_order \[1, 2, 4\]; expected", TUMOR, [1, 2, 4]),
    ],
)
def test_what_breaks_the_rules_is_one_line(message, labels, order):
    with pytest.raises(DataError, match=f"^dataset.json: .*{message}"):
        parsed(labels, order)


def test_a_class_that_no_prediction_can_have_is_a_warning():
    """Small regions before those that hold them, or numbers in another order; merged classes are meant so."""
    with pytest.warns(UserWarning, match="label 2 is predicted as 1, for whole is the last region that has it"):
        parsed({"background": 0, "core": [2], "whole": [1, 2]}, [2, 1])
    with pytest.warns(UserWarning, match="label 1 is predicted as 3"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "dataset.json: label 3")
        parsed(TUMOR, [3, 2, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parsed({"background": 0, "whole": [1, 2, 3], "core": [2]}, [1, 2])  # 3 is written as 1
