"""`medjax precision`: files hold what SciPy, pingouin and the library say of the tables; a line says what is wrong."""

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from medjax import cli
from medjax.errors import DataError
from medjax.metrics.multiple_testing import holm
from medjax.tools.biomarker_precision import Settings
from medjax.tools.precision import precision_of_tables
from medjax.tools.precision_outputs import cohort_rows
from medjax.uncertainty.ensemble_scores import crps
from medjax.uncertainty.interval_coverage import interval_score
from medjax.uncertainty.sample_intervals import interval_overlap, intervals

S, N = 8, 6
OPTIONS = ("--resamples", "40")
PINGOUIN_ICC = 0.9937896616999483  # pingouin 0.7.0: intraclass_corr of the means of SCAN and RESCAN, ICC(A,1)


def simulate():
    """Means of 90 to 200 with a shift of every scan, a rescan that is 2 larger, and samples of deviation 2."""
    draw, mean = np.random.default_rng(16), np.linspace(90, 200, S)[:, None]
    scan = mean + draw.normal(0, 3, (S, 1)) + draw.normal(0, 2, (S, N))
    rescan = mean + 2 + draw.normal(0, 3, (S, 1)) + draw.normal(0, 2, (S, N))
    return np.round(scan, 3), np.round(rescan, 3), mean[:, 0]


SCAN, RESCAN, TRUTH = simulate()


def table(values, **columns):
    """Rows of a sample table: LVEDV_ml the values, LVEF_percent a third of them, a site that is no number."""
    header = ["subject", "sample", "LVEDV_ml", "site", "LVEF_percent", *columns]
    return header, [
        [f"P{s}", k, f"{v:.3f}", "north", f"{v / 3:.6f}", *(of[s] for of in columns.values())]
        for s, row in enumerate(values)
        for k, v in enumerate(row)
    ]


def write(name, header, rows):
    with Path(name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return name


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    write("scan.csv", *table(SCAN))
    header, rows = table(RESCAN)
    write("rescan.csv", header, rows[::-1])  # in another order
    write("truth.csv", ["subject", "LVEDV_ml"], [[f"P{s}", TRUTH[s]] for s in range(S)])


def medjax_command(*arguments):
    return CliRunner().invoke(cli.app, ["precision", *map(str, arguments)], prog_name="medjax")


def read(name, *keys):
    with Path(name).open() as file:
        return {tuple(row[key] for key in keys): row for row in csv.DictReader(file)}


def test_files_hold_the_figures_of_the_tables():
    result = medjax_command("scan.csv", "rescan.csv", "-o", "out", "--truth", "truth.csv", *OPTIONS)
    assert result.exit_code == 0, result.output
    typed = ["medjax", "precision", "scan.csv", "rescan.csv", "-o", "out", "--truth", "truth.csv", *OPTIONS]
    assert f"<code>{shlex.join(map(str, typed))}</code>" in Path("out/report.html").read_text()
    found = {
        key[1]: row for key, row in read("out/precision.csv", "biomarker", "figure").items() if key[0] == "LVEDV_ml"
    }
    value = {name: float(row["estimate"]) for name, row in found.items()}
    assert {(row["subjects"], row["samples"]) for row in found.values()} == {(str(S), str(N))}
    d = RESCAN.mean(1) - SCAN.mean(1)
    half = stats.t.ppf(0.975, S - 1) * stats.sem(d)
    assert value["bias"] == pytest.approx(d.mean(), rel=1e-5)
    assert float(found["bias"]["low"]) == pytest.approx(d.mean() - half, rel=1e-5)
    assert value["loa/high"] == pytest.approx(d.mean() + stats.norm.ppf(0.975) * d.std(ddof=1), rel=1e-5)
    assert value["icc"] == pytest.approx(PINGOUIN_ICC, abs=1e-6)
    assert value["cov"] == pytest.approx(
        np.mean(d**2 / 2 / ((SCAN.mean(1) + RESCAN.mean(1)) / 2) ** 2) ** 0.5, rel=1e-5
    )
    ends = intervals(SCAN), intervals(RESCAN)
    for kind in ("iou", "shorter", "dice"):
        assert value[f"overlap/percentile/{kind}"] == np.mean(interval_overlap(*ends, kind) > 0.5)
    p = np.array([stats.ks_2samp(a, b).pvalue for a, b in zip(SCAN, RESCAN, strict=True)])
    assert value["significant/ks/none"] == np.mean(p <= 0.05) and value["significant/ks/holm"] == np.mean(
        holm(p) <= 0.05
    )
    inside = (ends[0].low <= RESCAN.mean(1)) & (RESCAN.mean(1) <= ends[0].high)
    assert value["coverage/rescan_mean"] == inside.mean()
    assert value["coverage/scan"] == np.mean((ends[0].low <= TRUTH) & (ends[0].high >= TRUTH))
    assert value["crps/rescan"] == pytest.approx(crps(RESCAN, TRUTH).mean(), rel=1e-5)
    assert value["interval_score/scan"] == pytest.approx(interval_score(*ends[0], TRUTH).mean(), rel=1e-5)
    own = read("out/subjects.csv", "biomarker", "subject")
    for s in range(S):
        row = own["LVEDV_ml", f"P{s}"]
        assert float(row["difference"]) == pytest.approx(d[s], rel=1e-4)
        assert float(row["p/welch"]) == pytest.approx(
            stats.ttest_ind(SCAN[s], RESCAN[s], equal_var=False).pvalue, rel=1e-5
        )
        assert float(row["p/paired"]) == pytest.approx(stats.ttest_rel(SCAN[s], RESCAN[s]).pvalue, rel=1e-5)
        assert float(row["p_holm/ks"]) == pytest.approx(holm(p)[s], rel=1e-5)
        assert float(row["low/scan"]) == pytest.approx(np.quantile(SCAN[s], 0.025), rel=1e-5)
        assert float(row["wasserstein"]) == pytest.approx(stats.wasserstein_distance(SCAN[s], RESCAN[s]), rel=1e-5)
        assert row["truth/scan"] and not own["LVEF_percent", f"P{s}"]["truth/scan"]
    files = {path.name for path in Path("out").iterdir()}
    assert files >= {"report.html", "violins_LVEF_percent.png", "bland_altman_LVEDV_ml.png", "curves_coverage.png"}
    page = Path("out/report.html").read_text()
    assert "Definition of the overlap" in page and page.count("data:image/png") == 8 and "N = 6" in page


def test_the_terminal_says_n_and_what_depends_on_it():
    result = medjax_command("scan.csv", "rescan.csv", "--biomarkers", "LVEF_percent", "--overlap", "dice", *OPTIONS)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "N = 6" in text and "(Dice)" in text and "compare methods and studies at equal N only" in text
    assert "LVEDV_ml" not in text
    assert "percentile intervals of 6 samples hold a further draw" in result.stderr
    few = medjax_command("scan.csv", "rescan.csv", "--samples", "3", *OPTIONS)
    assert "ks: the smallest p-value of 3 samples is 0.1" in few.stderr and "none can be significant" in few.stderr


def test_a_known_shift_is_found_and_no_shift_is_none():
    """The rescan is the scan + 1: all differences are 1; the scan with itself agrees in everything."""
    header, rows = table(SCAN + 1)
    write("shifted.csv", header, rows)
    settings = Settings(resamples=20)
    found = precision_of_tables("scan.csv", "shifted.csv", settings=settings, biomarkers="LVEDV_ml")
    points = found.biomarkers["LVEDV_ml"].precision.points
    assert points.limits.bias == pytest.approx(1, abs=1e-9) and points.limits.sd == pytest.approx(0, abs=1e-9)
    same = precision_of_tables("scan.csv", "scan.csv", settings=settings).biomarkers["LVEDV_ml"]
    assert same.precision.figures["overlap/percentile/iou"] == 1 and same.precision.figures["wasserstein"] == 0
    assert same.curves["overlap/iou"].mean.tolist() == [1, 1, 1] and same.curves["overlap/iou"].samples.tolist() == [
        3,
        5,
        6,
    ]
    assert same.rescan_coverage is not None and same.rescan_coverage.value == 1


@pytest.mark.parametrize("value", [0, 4.224])
def test_a_biomarker_that_never_varies(value):
    """Of a structure that no sample changes: no ICC, and everything agrees; no test is made."""
    rows = [[f"P{s}", k, value] for s in range(4) for k in range(N)]
    write("same.csv", ["subject", "sample", "RVSV"], rows)
    found = precision_of_tables("same.csv", "same.csv", "out", settings=Settings(resamples=20)).biomarkers["RVSV"]
    assert np.isnan(found.precision.points.icc.value)
    assert found.precision.points.limits.bias == 0 == found.precision.figures["significant/ks/none"]
    assert found.precision.figures["overlap/percentile/iou"] == 1
    assert Path("out/violins_RVSV.png").is_file()


def test_the_first_samples_of_each():
    found = precision_of_tables("scan.csv", "rescan.csv", samples=4, settings=Settings(resamples=20))
    np.testing.assert_array_equal(found.biomarkers["LVEDV_ml"].scan, SCAN[:, :4])
    assert found.samples == 4


def test_recalibration_needs_subjects():
    options = ("--truth", "truth.csv", *OPTIONS)
    result = medjax_command("scan.csv", "rescan.csv", *options)
    assert "too few subjects to recalibrate at level 0.95 on one half: 38 are needed" in result.stderr
    settings = Settings(level=0.75, resamples=20)
    found = precision_of_tables("scan.csv", "rescan.csv", settings=settings, truth="truth.csv").biomarkers["LVEDV_ml"]
    conformal = found.truth["scan"].conformal
    assert conformal is not None and conformal.after.subjects == S and conformal.after.value >= conformal.before.value


def test_the_truth_of_the_rescan_and_unknown_ones():
    write("later.csv", ["subject", "LVEDV_ml"], [[f"P{s}", "" if s == 3 else TRUTH[s] + 2] for s in range(S)])
    found = precision_of_tables(
        "scan.csv", "rescan.csv", truth="truth.csv", rescan_truth="later.csv", settings=Settings(resamples=20)
    ).biomarkers["LVEDV_ml"]
    error = found.truth["rescan"].error
    assert error is not None
    rest = np.arange(S) != 3
    assert error.bias == pytest.approx((RESCAN.mean(1) - TRUTH - 2)[rest].mean())
    subjects = {figure: number for figure, _, number in cohort_rows(found)}
    assert subjects["coverage/rescan"] == S - 1 and subjects["coverage/scan"] == subjects["bias"] == S


def test_point_tables_have_points_only():
    for name, values in (("a.csv", SCAN), ("b.csv", RESCAN)):
        write(name, ["subject", "LVEF"], [[f"P{s}", f"{row.mean():.6f}"] for s, row in enumerate(values)])
    Path("out").mkdir()
    Path("out/violins_LVEF.png").write_text("of an earlier call")
    result = medjax_command("a.csv", "b.csv", "-o", "out", *OPTIONS)
    assert result.exit_code == 0, result.output
    assert (
        "one value a scan: agreement of point estimates only" in result.stderr and "distributions" not in result.stdout
    )
    found = read("out/precision.csv", "figure")
    assert float(found["bias",]["estimate"]) == pytest.approx((RESCAN - SCAN).mean(), abs=1e-5)
    assert not any(name.startswith(("overlap", "significant")) for (name,) in found)
    assert {path.name for path in Path("out").iterdir()} == {
        "precision.csv", "subjects.csv", "report.html", "agreement.png", "bland_altman_LVEF.png"
    }  # fmt: skip


def test_incomplete_subjects_are_left_out_by_name():
    header, rows = table(RESCAN)
    rows[3 * N + 2][2] = "nan"  # P3, LVEDV
    write("gaps.csv", header, rows[: (S - 1) * N])  # without P7
    result = precision_of_tables("scan.csv", "gaps.csv", drop_incomplete=True, settings=Settings(resamples=20))
    assert result.warnings[:2] == [
        "subject 'P7' only in scan.csv: left out",
        "LVEDV_ml: missing values of subject 'P3': left out of it",
    ]
    found, rest = result.biomarkers, [0, 1, 2, 4, 5, 6]
    assert found["LVEDV_ml"].subjects == [f"P{s}" for s in rest] and len(found["LVEF_percent"].subjects) == 7
    assert found["LVEDV_ml"].precision.points.limits.bias == pytest.approx((RESCAN - SCAN).mean(1)[rest].mean())
    write("one.csv", header, rows[:N] + [[*row[:2], "", *row[3:]] for row in rows[N : 2 * N]])
    with pytest.raises(DataError, match="LVEDV_ml: 1 subject with scan and rescan; expected two or more"):
        precision_of_tables("scan.csv", "one.csv", drop_incomplete=True)


def test_columns_that_never_change_are_named():
    age = {"age": range(60, 60 + S)}
    write("a.csv", *table(SCAN, **age))
    write("b.csv", *table(RESCAN, **age))
    line = precision_of_tables("a.csv", "b.csv", settings=Settings(resamples=20)).warnings[0]
    assert line.startswith("age: equal in scan and rescan of all subjects")


def test_another_spacing_is_reported():
    spacing = {"spacing_mm": ["1.4x1.4x8"] * S}
    write("a.csv", *table(SCAN, **spacing))
    spacing["spacing_mm"][2] = "1.4x1.4x10"
    write("b.csv", *table(RESCAN, **spacing))
    result = medjax_command("a.csv", "b.csv", *OPTIONS)
    assert result.exit_code == 0
    spacing["spacing_mm"][2] = "1.40 × 1.4 × 8.0 mm"
    write("c.csv", *table(RESCAN, **spacing))
    assert "spacing" not in " ".join(precision_of_tables("a.csv", "c.csv", settings=Settings(resamples=20)).warnings)
    found = "spacing_mm of scan and rescan differ in 1 of 8 subjects, such as 'P2' (1.4x1.4x8 and 1.4x1.4x10)"
    assert found in result.stderr


def test_an_output_is_no_input_and_a_wrong_option_is_one_line():
    Path("out").mkdir()
    Path("scan.csv").rename("out/subjects.csv")
    result = medjax_command("out/subjects.csv", "rescan.csv", "-o", "out")
    assert result.exit_code == 2 and "is the input" in result.stderr
    assert [path.name for path in Path("out").iterdir()] == ["subjects.csv"]
    for message, *options in (
        ("--interval width; expected percentile, normal or mean", "--interval", "width"),
        ("--overlap jaccard; expected iou, shorter or dice", "--overlap", "jaccard"),
        ("--correction bonferroni; expected none, holm or bh", "--correction", "bonferroni"),
        ("--level 95; expected a number between 0 and 1", "--level", "95"),
        ("--samples 0; expected 1 or more", "--samples", "0"),
        ("--rescan-truth without --truth", "--rescan-truth", "truth.csv"),
    ):
        result = medjax_command("rescan.csv", "rescan.csv", *options)
        assert result.exit_code == 2 and re.fullmatch(rf"medjax: {re.escape(message)}.*\n", result.stderr), (
            result.stderr
        )
