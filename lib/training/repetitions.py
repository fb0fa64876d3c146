"""What evaluate repeats of a training, if asked to. Torch-free until there is something to do."""

from lib.evaluation.films import EvaluationSet
from lib.evaluation.leave_source_out import NO_SOURCE, LeftOutTable, folds_of
from lib.evaluation.model import Scored
from lib.evaluation.request import Request
from lib.evaluation.results import Repeats
from lib.network.artifact import ModelManifest
from lib.run import signals


def repeat_splits(
    request: Request, films: EvaluationSet, manifest: ModelManifest
) -> Repeats | None:
    """Train heads on other splits, and write repeats.csv; None: not asked for.

    Raises:
        JobError: as `lib.training.repeats.repeat`.
    """
    if not request.repeats:
        return None
    signals.import_torch()
    from lib.training.repeats import repeat

    return repeat(request, films, manifest.weights_sha256)


def leave_sources_out(
    request: Request, films: EvaluationSet, scored: Scored
) -> LeftOutTable | None:
    """Repeat the training without each source that can be left out, and write
    leave_source_out.csv; None: not asked for.
    """
    if not request.leave_source_out:
        return None
    folds, found = folds_of(films), LeftOutTable(NO_SOURCE)
    if folds:
        signals.import_torch()
        from lib.training.leave_source_out import table_of_folds

        found = table_of_folds(folds, request, scored)
    found.write(request.folder / "leave_source_out.csv")
    return found
