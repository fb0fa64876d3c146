"""The verdict: what a model's macro-F1 is worth beside baselines that see no lung."""

from collections.abc import Mapping, Sequence

from lib.evaluation.baselines import BASELINES, CONTROLS
from lib.evaluation.results import BaselineScores, Estimate, LeftOutSource, Level, Verdict

# Macro-F1 by which the model may still be better where the margin's interval reaches 0: beyond it
# the films are too few to call the model a shortcut.
UNDECIDED = 0.1


def verdict(
    model: Estimate,
    baselines: Mapping[str, BaselineScores],
    chance: float,
    left_out: Sequence[LeftOutSource] = (),
) -> Verdict:
    """Judge the model's macro-F1. `chance` is the macro-F1 of guessing.

    A model that is "clear" at home is "confounded" if its training does not hold in a source of
    `left_out`: see `lost_away`.
    """
    best = max(baselines, key=lambda name: baselines[name].macro_f1)
    score = model.value or 0.0
    share = 1.0
    if score > chance:
        share = min((baselines[best].macro_f1 - chance) / (score - chance), 1.0)
    found = level(model, baselines, chance, share)
    away = _away_words(left_out)
    if found == "clear" and any(map(lost_away, left_out)):
        found = "confounded"
        away += "At home the model beats its baselines. "
        judged = _scores_words(score, best, baselines[best].macro_f1) + "."
    else:
        judged = words(found, score, best, baselines[best].macro_f1, chance)
    return Verdict(
        level=found,
        words=away + judged + _control_words(best, baselines),
        best_baseline=best,
        share_without_lungs=share,
    )


def level(
    model: Estimate, baselines: Mapping[str, BaselineScores], chance: float, share: float
) -> Level:
    """The level of a verdict.

    "chance": the model's interval reaches chance and no baseline is clearly better. Where the model
    does not clearly beat a baseline: "undecided" if the margin's interval is too wide to tell, else
    "shortcut". "confounded": the best baseline gets more than half of the way from chance to the
    model (`share`). Else "clear".
    """
    margins = [baseline.margin.interval for baseline in baselines.values()]
    unbeaten = [margin for margin in margins if margin is None or margin[0] <= 0]
    is_outdone = any(margin is not None and margin[1] < 0 for margin in margins)
    if (model.interval is None or model.interval[0] <= chance) and not is_outdone:
        return "chance"
    if unbeaten:
        is_wide = all(margin is not None and margin[1] > UNDECIDED for margin in unbeaten)
        return "undecided" if is_wide else "shortcut"
    return "confounded" if share > 0.5 else "clear"


def words(level: Level, model: float, best: str, baseline: float, chance: float) -> str:
    """The verdict as sentences; `model` and `baseline`, the `best` one, are macro-F1."""
    row, scores = BASELINES[best], _scores_words(model, best, baseline)
    return {
        "chance": "Nothing here shows that the model does better than guessing: its macro-F1 of "
        f"{model:.3f} cannot be told from chance ({chance:.3f}). Check the labels and the number "
        "of films.",
        "undecided": "These films are too few to tell whether the model reads lungs. "
        f"{scores}; the true difference may be large or none. Get more films before drawing a "
        "conclusion.",
        "shortcut": f"Nothing here shows that the model reads lungs. {scores}: it does not clearly "
        f"beat a baseline that {row.unbeaten} Get films of all classes from the same place.",
        "confounded": "The model beats its baselines, but most of this score can be reached "
        f"without looking at a lung. {scores}. Expect less at another hospital, and read the "
        "scores within one source.",
        "clear": "The model clearly beats what can be reached without looking at a lung. "
        f"{scores}.",
    }[level]


def lost_away(fold: LeftOutSource) -> str:
    """Why the training does not hold in a source that it does not see; empty: it holds there.

    It does not where the mean AUROC cannot be told from guessing, where a baseline is not clearly
    beaten, or where more than half of what the model gains over guessing at home is lost.
    """
    area = fold.mean_auroc
    if area.value is None or area.interval is None or area.interval[0] <= 0.5:
        return "not clearly better than guessing (0.5)"
    unbeaten = [
        name
        for name, baseline in fold.baselines.items()
        if baseline.margin.interval is None or baseline.margin.interval[0] <= 0
    ]
    if unbeaten:
        best = max(unbeaten, key=lambda name: fold.baselines[name].mean_auroc)
        row, reached = BASELINES[best], fold.baselines[best].mean_auroc
        return f"where {row.subject[0].lower()}{row.subject[1:]} reaches {reached:.3f}"
    home = [one.value for one in fold.home.values() if one.value is not None]
    if home and area.value - 0.5 < (sum(home) / len(home) - 0.5) / 2:
        return "which loses more than half of what it gains over guessing at home"
    return ""


def _away_words(left_out: Sequence[LeftOutSource]) -> str:
    """What the training gives in the source where it gives least."""
    if not left_out:
        return ""
    fold = min(left_out, key=lambda one: (not lost_away(one), one.mean_auroc.value or 0.0))
    interval, home = fold.mean_auroc.interval, [one.value or 0.0 for one in fold.home.values()]
    span = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    reason = lost_away(fold)
    words = (
        f"Trained without {fold.source}, the model reaches a mean AUROC of "
        f"{fold.mean_auroc.value or 0.0:.3f}{span} on the films of {fold.source}"
        f"{', ' if reason else ''}{reason}"
    )
    if home:
        words += f"; trained with them {sum(home) / len(home):.3f}"
    return f"{words}. "


def _scores_words(model: float, best: str, baseline: float) -> str:
    return (
        f"{BASELINES[best].subject} reaches a macro-F1 of {baseline:.3f} on the same films, "
        f"the model {model:.3f}"
    )


def _control_words(best: str, baselines: Mapping[str, BaselineScores]) -> str:
    """What the same network scores without seeing a lung, unless the verdict says so already."""
    known = [(baselines[name].macro_f1, how) for name, how in CONTROLS.items() if name in baselines]
    if not known or best in CONTROLS:
        return ""
    scores = ", ".join(f"{macro_f1:.3f} with {how}" for macro_f1, how in known)
    return f" What the same network scores without seeing a lung: a macro-F1 of {scores}."
