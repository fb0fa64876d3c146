"""The scores of an evaluation on the console."""

from pathlib import Path

from lib.evaluation.baselines import BASELINES
from lib.evaluation.results import (
    Comparison,
    Evaluation,
    External,
    LabelledBatch,
    LeaveSourceOut,
    Recalibration,
    Repeats,
    SourceScores,
)
from lib.reports.formatting import score, threshold, with_range, with_spread
from lib.run import console


def print_evaluation(evaluation: Evaluation, folder: Path, report: Path | None) -> None:
    """Print scores, baselines, sources, operating point, comparison and verdict."""
    scores = evaluation.scores
    console.table(
        _heading(evaluation),
        ("class", "precision", "recall", "F1", "AUROC", "films"),
        [
            (
                name,
                *(score(row.value) for row in (of.precision, of.recall, of.f1, of.auroc)),
                str(of.films),
            )
            for name, of in scores.per_class.items()
        ],
    )
    for baseline in evaluation.baselines.values():
        margin = with_range(baseline.margin, "+.3f")
        console.say(
            f"{baseline.what}: macro-F1 {baseline.macro_f1:.3f}; the model minus this: {margin}"
        )
    for source in evaluation.sources:
        _print_source(source)
    for probe in evaluation.source_probes:
        console.say(
            f"source of {probe.label} films ({', '.join(probe.films)}), told from the network's "
            f"features: accuracy {with_range(probe.accuracy)}; chance {probe.chance:.3f}, "
            f"sources shuffled {probe.shuffled:.3f}"
        )
    _print_operating_point(evaluation)
    if evaluation.leave_source_out:
        _print_left_out(evaluation.leave_source_out)
    if evaluation.repeats:
        _print_repeats(evaluation.repeats)
    if evaluation.external:
        _print_external(evaluation, evaluation.external)
    if evaluation.comparison:
        _print_comparison(evaluation.comparison)
    if evaluation.verdict:
        console.say(f"Verdict: {evaluation.verdict.words}")
    intervals = "95 % intervals · "
    if evaluation.labelled:
        _print_labelled(evaluation, evaluation.labelled)
        intervals *= evaluation.labelled.generalises
    console.say(
        f"accuracy {with_range(scores.accuracy)} · macro-F1 {with_range(scores.macro_f1)} · "
        f"{intervals}results in {folder}{f', report: {report}' if report else ''}"
    )


def _heading(evaluation: Evaluation) -> str:
    if evaluation.labelled:
        return f"{evaluation.model.name} on {evaluation.films} labelled films"
    kind = "external films" if evaluation.external else "test films"
    return f"phase {evaluation.model.phase} on {evaluation.films} {kind}"


def _print_labelled(evaluation: Evaluation, batch: LabelledBatch) -> None:
    counts = {
        "are no chest films": batch.not_a_chest_film,
        "have a class that the reader cannot tell": batch.cannot_tell,
        "have a class that the model does not know": batch.unknown_class,
    }
    console.say(
        f"{batch.answered} of {batch.readable} readable films of {batch.table} are answered"
        + "".join(f"; {number} {what}" for what, number in counts.items() if number)
    )
    if batch.not_in_table:
        console.warn(f"{batch.not_in_table} labels are of films that {batch.table} does not have.")
    if batch.generalises and not evaluation.calibration:
        console.say(
            f"no operating point: {evaluation.model.name} is not in the folder of runs, or has no "
            "stored threshold. Name its folder with --model."
        )
    (console.say if batch.generalises else console.warn)(batch.words)


def _print_source(source: SourceScores) -> None:
    for name, area in source.auroc.items():
        console.say(f"within {source.source}: {name} against the rest, AUROC {with_range(area)}")
    if source.auroc and source.baselines:
        accuracy = with_range(source.accuracy)
        baselines = ", ".join(
            f"{BASELINES[name].short} {share:.3f}" for name, share in source.baselines.items()
        )
        console.say(f"within {source.source}: accuracy {accuracy}; baselines: {baselines}")


def _print_operating_point(evaluation: Evaluation) -> None:
    points = {
        point.positive: point
        for point in (evaluation.operating_point, evaluation.screening)
        if point
    }
    for point in points.values():
        console.say(
            f"{point.positive} from probability {threshold(point.threshold)}: "
            f"sensitivity {with_range(point.sensitivity)}, "
            f"specificity {with_range(point.specificity)}, "
            f"{point.missed} of {point.cases} cases missed"
        )


def _print_left_out(result: LeaveSourceOut) -> None:
    if result.none_because:
        console.say(f"no source was left out: {result.none_because}")
    for fold in result.sources:
        areas = " · ".join(f"{name} {with_range(area)}" for name, area in fold.auroc.items())
        console.say(f"trained without {fold.source}, AUROC inside it: {areas}")
        if fold.change:
            changes = " · ".join(
                f"{name} {with_range(one, '+.3f')}" for name, one in fold.change.items()
            )
            console.say(f"  minus that of this model, on {fold.home_films} test films: {changes}")
        if fold.baselines:
            beside = ", ".join(
                f"{BASELINES[name].short} {row.mean_auroc:.3f}"
                for name, row in fold.baselines.items()
            )
            console.say(f"  mean {with_range(fold.mean_auroc)}; baselines: {beside}")


def _print_repeats(repeats: Repeats) -> None:
    spreads = {"accuracy": repeats.accuracy, "macro-F1": repeats.macro_f1}
    spreads |= {f"AUROC of {name}": one for name, one in repeats.auroc.items()}
    scores = " · ".join(f"{name} {with_spread(one)}" for name, one in spreads.items())
    console.say(f"head alone, mean ± standard deviation of {len(repeats.seeds)} splits: {scores}")


def _print_external(evaluation: Evaluation, external: External) -> None:
    if external.out_of_distribution is not None:
        console.say(
            f"{external.out_of_distribution:.1%} of the films are unlike the training films, "
            f"{evaluation.review.share:.1%} need a review"
        )
    if external.fitted:
        console.say(
            f"with {external.fitted.positive} from probability "
            f"{threshold(external.fitted.threshold)} on, which was chosen on these very films: "
            f"sensitivity {with_range(external.fitted.sensitivity)}, "
            f"specificity {with_range(external.fitted.specificity)}"
        )
    if external.home:
        console.say(
            f"at home, on {external.home.films} test films: accuracy "
            f"{with_range(external.home.accuracy)} · macro-F1 {with_range(external.home.macro_f1)}"
        )
    if external.recalibration:
        _print_recalibration(external.recalibration)


def _print_recalibration(site: Recalibration) -> None:
    console.say(
        f"set up for this place: {site.model}; expected calibration error {site.before.ece:.3f} "
        f"before, {site.after.ece:.3f} after; needing a review {site.before.needs_review:.1%} "
        f"before, {site.after.needs_review:.1%} after"
    )
    for rates in site.after.rates:
        console.say(
            f"{rates.positive} from probability "
            f"{threshold(site.thresholds[rates.positive])} on, there: "
            f"sensitivity {with_range(rates.sensitivity)}, "
            f"specificity {with_range(rates.specificity)}"
        )


def _print_comparison(comparison: Comparison) -> None:
    differences = comparison.differences
    rows = {"accuracy": differences.accuracy, "macro-F1": differences.macro_f1}
    rows |= {f"AUROC of {name}": of.auroc for name, of in differences.per_class.items()}
    for name, difference in rows.items():
        console.say(f"change of {name}: {with_range(difference, '+.3f')}")
