"""`medjax shortcuts fairness`: metrics of a table; another model's rows are matched by id; bad input is one line."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medjax import cli
from medjax.shortcuts import fairness
from medjax.shortcuts.group_metrics import cases
from medjax.tools.shortcuts_fairness import fairness_of_table

HEADER = ["scan", "patient", "label", "sex", "p"]
OPTIONS = ("--score", "p", "--attribute", "sex", "--subject", "patient", "--id", "scan", "--resamples", "60")


def rows(seed=0, shortcut=1.0):
    """80 scans of 40 patients; the score follows the label, and the sex by `shortcut`."""
    rng = np.random.default_rng(seed)
    label, sex = np.repeat(np.tile([0, 0, 1, 1], 10), 2), np.repeat(np.tile([0, 1], 20), 2)
    score = 1 / (1 + np.exp(-(2 * label - 1 + shortcut * (2 * sex - 1) + rng.normal(size=80))))
    return [[f"s{k}", f"P{k // 2}", label[k], "FM"[sex[k]], f"{score[k]:.4f}"] for k in range(80)]


def write(name, content, header=HEADER):
    with Path(name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *content])
    return name


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    write("a.csv", rows())
    write("b.csv", rows(1, 0.0)[::-1])  # the same cases in another order


def medjax_command(*arguments):
    return CliRunner().invoke(cli.app, ["shortcuts", "fairness", *map(str, arguments)], prog_name="medjax")


def refused(message, *arguments):
    result = medjax_command(*arguments)
    assert result.exit_code == 2, result.output
    assert re.fullmatch(rf"medjax: .*{message}.*\n", result.stderr), result.stderr
    assert not Path("out").exists()


def test_files_hold_the_metrics_of_the_table():
    result = medjax_command("a.csv", *OPTIONS, "--compare", "b.csv", "-o", "out")
    assert result.exit_code == 0, result.output
    typed = shlex.join(["medjax", "shortcuts", "fairness", "a.csv", *OPTIONS, "--compare", "b.csv", "-o", "out"])
    assert f"<code>{typed}</code>" in Path("out/report.html").read_text()
    assert "80 cases of 40 subjects" in result.stdout and "minus b.csv" in result.stdout
    with Path("out/fairness.csv").open() as file:
        found = {(one["quantity"], one["attribute"], one["group"], one["metric"]): one for one in csv.DictReader(file)}
    columns = {name: [row[k] for row in rows()] for k, name in enumerate(HEADER)}
    label, sex = np.array(columns["label"]), np.array([one == "M" for one in columns["sex"]], int)
    wanted = fairness.metrics(cases(label, sex, np.array(columns["p"], float)))
    for metric, values in wanted.groups.items():
        for k, group in enumerate("FM"):
            assert float(found["value", "sex", group, metric]["estimate"]) == pytest.approx(float(values[k]), abs=2e-6)
    for metric, value in wanted.summary.items():
        one = found["value", "sex", "", metric]
        assert float(one["estimate"]) == pytest.approx(float(value), abs=2e-6)
        assert float(one["low"]) <= float(one["high"])
    other = [rows(1, 0.0)[k][4] for k in range(80)]  # in the order of a.csv
    baseline = fairness.metrics(cases(label, sex, np.array(other, float)))
    for metric, value in wanted.summary.items():
        change = float(found["difference", "sex", "", metric]["estimate"])
        assert change == pytest.approx(float(value) - float(baseline.summary[metric]), abs=2e-6)
    content = json.loads(Path("out/fairness.json").read_text())
    assert content["counts"] == {"sex": {"F": [20, 20], "M": [20, 20]}} and content["subjects"] == 40
    assert len(content["metrics"]) == len(found)
    assert Path("out/fairness.png").read_bytes().startswith(b"\x89PNG")
    page = Path("out/report.html").read_text()
    assert "equalized odds" in page and "minus b.csv" in page and "data:image/png" in page
    equal = fairness_of_table("a.csv", ["sex"], score="p", subject="patient", id="scan", compare="b.csv", resamples=60)
    shown = float(equal.attributes["sex"].summary["auroc_gap"].high)
    assert float(found["value", "sex", "", "auroc_gap"]["high"]) == pytest.approx(shown, rel=1e-5)


def test_a_model_compared_with_itself_does_not_differ():
    same = fairness_of_table("a.csv", ["sex"], score="p", subject="patient", id="scan", compare="a.csv", resamples=60)
    for one in (same.attributes["sex"].difference, same.overall_difference):
        assert one is not None and all(float(x) == 0 for interval in one.values() for x in interval)


def test_names_of_classes_and_empty_groups():
    """Classes by name instead of scores; one site has no case of AD: what needs one is a dash, and it is said."""
    content = [
        [row[0], row[1], "AD" if row[2] else "CN", "left out" if row[2] == 0 and row[3] == "F" else "site", "AD"]
        for row in rows()
    ]
    write("names.csv", content)
    options = ("--prediction", "p", "--positive", "AD", "--attribute", "sex", "--resamples", "60")
    result = medjax_command("names.csv", *options)
    assert result.exit_code == 0, result.output
    assert "medjax: sex left out: no case of label 1; what needs one is undefined" in result.stderr
    assert re.search(r"balanced accuracy +– +0\.500 \(0\.500, 0\.500\)", result.stdout)
    assert re.search(r"AUROC +– +–", result.stdout)
    assert re.search(r"equalized odds +–", result.stdout)


def test_predicted_classes_are_those_of_the_label():
    """A model that predicts one class only is measured; another class (MCI) is refused, in a baseline too."""
    named = [[*row[:2], "AD" if row[2] else "CN", row[3], "CN"] for row in rows()]
    options = ("--prediction", "p", "--positive", "AD", "--attribute", "sex", "--id", "scan", "--resamples", "60")
    negatives = write("negatives.csv", named)
    result = medjax_command(negatives, *options)
    assert result.exit_code == 0, result.output
    assert re.search(r"TPR +0\.000 .* +0\.000", result.stdout)
    other = write("mci.csv", [*named[:-1], [*named[-1][:4], "MCI"]])
    message = r"mci\.csv: p and the label have the values AD, CN, MCI; expected AD \(--positive\) and one other"
    refused(message, other, *options)
    refused(message, negatives, *options, "--compare", other)
    assert "95 % bootstrap intervals" in result.stdout


def test_scores_that_are_no_probabilities():
    content = [[*row[:4], f"{10 * float(row[4]) - 5:.4f}"] for row in rows()]
    write("logits.csv", content)
    refused(r"scores from -\d.* are no probabilities; expected --threshold, or --prediction", "logits.csv", *OPTIONS)
    result = medjax_command("logits.csv", *OPTIONS, "--threshold", "0")
    assert result.exit_code == 0 and "no calibration error (ECE)" in result.stderr
    assert re.search(r"ECE +– +–", result.stdout)


def changed(row, column, value):
    content = rows()
    content[row][HEADER.index(column)] = value
    return write("changed.csv", content)


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (3, "label", 2, "label '2' in line 5; expected 0 and 1, or --positive"),
        (3, "label", "nan", "label is nan in 1 rows, first in line 5; expected a value"),
        (3, "patient", "NaN", "patient is NaN in 1 rows, first in line 5"),
        (3, "sex", "NA", "sex is NA in 1 rows, first in line 5"),
        (3, "label", "", "label is empty in 1 rows, first in line 5"),
        (3, "p", "nan", "p is nan in 1 rows, first in line 5"),
        (3, "p", "inf", "p 'inf' in line 5; expected a finite number"),
        (3, "p", "high", "p 'high' in line 5; expected a finite number"),
        (3, "sex", "", "sex is empty in 1 rows"),
        (3, "scan", "s2", "scan 's2' occurs more than once"),
    ],
)
def test_wrong_cells_are_refused(row, column, value, message):
    refused(message, changed(row, column, value), *OPTIONS, "-o", "out")


def test_wrong_tables_are_refused():
    refused("no column 'sec'; did you mean 'sex'", "a.csv", "--score", "p", "--attribute", "sec", "-o", "out")
    refused("no column 'zzz'; expected one of scan, patient", "a.csv", "--score", "zzz", "--attribute", "sex")
    refused("--score, --prediction: neither", "a.csv", "--attribute", "sex")
    refused("no such file", "none.csv", *OPTIONS)
    refused("no row", write("empty.csv", []), *OPTIONS)
    refused("scan has 80 different values .*; expected 2 to 20", "a.csv", "--score", "p", "--attribute", "scan")
    refused("sex has 1 different values", write("one.csv", [row for row in rows() if row[3] == "F"]), *OPTIONS)
    refused("label has the values 0, 1; expected AD", "a.csv", *OPTIONS, "--positive", "AD")
    refused("--threshold, --prediction: both", "a.csv", *OPTIONS, "--prediction", "label", "--threshold", "0.3")
    refused("--level 1; expected a number between", "a.csv", *OPTIONS, "--level", "1")
    refused("--resamples 0", "a.csv", *OPTIONS[:-1], "0")
    refused("--seed -1", "a.csv", *OPTIONS, "--seed", "-1")
    refused("a.csv is a file; expected a folder to write to", "a.csv", *OPTIONS, "-o", "a.csv/deep")


def test_tables_as_spreadsheets_write_them():
    """A byte-order mark is no part of the first column; a row that is too short is refused, and so is Latin-1."""
    Path("mark.csv").write_text(Path("a.csv").read_text(), encoding="utf-8-sig")
    refused("no column 'scam'; did you mean 'scan'", "mark.csv", *OPTIONS, "--id", "scam")
    Path("short.csv").write_text(Path("a.csv").read_text() + "s99,P99,1\n")
    refused("3 cells in line 82; expected 5", "short.csv", *OPTIONS)
    Path("latin.csv").write_bytes("scan,é\n1,2\n".encode("latin-1"))
    refused("line 1 is not UTF-8", "latin.csv", *OPTIONS)


def test_tables_of_other_cases_are_refused():
    compare = ("a.csv", *OPTIONS, "-o", "out", "--compare")
    refused("lacks 2 ids, such as 's78'", *compare, write("c.csv", rows()[:-2]))
    refused("has also 1 ids, such as 'x'", *compare, write("c.csv", [*rows(), ["x", "P1", 0, "F", 0.5]]))
    refused("another label for id 's3'", *compare, changed(3, "label", 1))
    refused("another sex for id 's0'", *compare, changed(0, "sex", "M"))
    refused("another patient for id 's7'", *compare, changed(7, "patient", "P9"))
    turned = [[*row[:2], 7, *row[3:]] if row[0] == "s3" else row for row in rows()[::-1]]
    refused("label '7' in line 78", *compare, write("c.csv", turned))
    refused("expected --id", "a.csv", "--score", "p", "--attribute", "sex", "--compare", "b.csv")


def test_an_output_is_no_input():
    Path("out").mkdir()
    Path("a.csv").rename("out/fairness.csv")
    result = medjax_command("out/fairness.csv", *OPTIONS, "-o", "out")
    assert result.exit_code == 2 and "is the input" in result.stderr
    assert [path.name for path in Path("out").iterdir()] == ["fairness.csv"]
