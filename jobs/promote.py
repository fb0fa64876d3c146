"""Put a trained model in the place of the one that answers, or go back to the one before."""

from pathlib import Path
from typing import Annotated

from lib import settings
from lib.network.versions import FOLDER, Versions
from lib.run import console, execute
from lib.run.errors import DONE, UsageError
from lib.run.flags import Flag
from lib.storage import atomic


def promote(
    *,
    model: Annotated[
        Path | None,
        Flag("folder of the model to promote; none: RUNS_DIR/model", placeholder="DIR"),
    ] = None,
    rollback: Annotated[
        bool, Flag("go back to the version that answered before, in place of promoting one")
    ] = False,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
) -> int:
    """Keep the trained model as RUNS_DIR/models/<version>/ and let predict_batch answer with it.

    Until a model is promoted predict_batch answers with RUNS_DIR/model, which every training
    replaces. From then on it answers with the promoted version, and a training changes nothing
    until its model is promoted. Versions are never deleted; the column model of a table names the
    one that answered. Compare first: evaluate --compare.

    Examples:
        python -m jobs.promote
        python -m jobs.promote --rollback
        python -m jobs.promote --model runs/models/efficientnet_b0@0123456789ab
    """
    if model and rollback:
        raise UsageError("--rollback takes the version before; --model does not go with it.")
    with atomic.lock(runs_dir / FOLDER, "the versions of the model"):
        before = Versions.read(runs_dir)
        after = before.rollback() if rollback else before.promote(model or runs_dir / "model")
    if after.current == before.current:
        console.say(f"{after.current} answers already; nothing was changed.")
    else:
        kept = f"; {before.current} is kept" if before.current else ""
        console.say(f"{after.current} answers from now on{kept} ({after.folder})")
    return DONE


if __name__ == "__main__":
    execute.run(promote)
