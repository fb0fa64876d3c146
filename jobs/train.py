"""The train job: Phase A trains the head on a frozen backbone, Phase B the last block as well."""

from pathlib import Path
from typing import Annotated, Literal

from lib import settings
from lib.network.choices import FILM_SIDE, Crop, Phase, PrecisionChoice
from lib.run import execute, signals
from lib.run.errors import DONE
from lib.run.flags import Flag
from lib.storage import atomic
from lib.training.plan import Overrides, Scheduler, defaults_of, plan_of


def train(
    *,
    phase: Annotated[
        Phase,
        Flag("a: head on a frozen backbone; b: last block and head, from Phase A's best epoch"),
    ],
    backbone: Annotated[str, settings.BACKBONE] = settings.BACKBONE.default,
    epochs: Annotated[
        int | None, Flag(f"passes over the training films; {defaults_of('epochs')}", at_least=1)
    ] = None,
    lr: Annotated[
        float | None,
        Flag(f"learning rate of AdamW; {defaults_of('lr')}", above=0, below=1),
    ] = None,
    scheduler: Annotated[
        Scheduler | None,
        Flag(f"schedule of the learning rate, per epoch; {defaults_of('scheduler')}"),
    ] = None,
    freeze_backbone: Annotated[
        bool | None, Flag(f"freeze the pretrained backbone; {defaults_of('freeze_backbone')}")
    ] = None,
    fine_tune_last_block: Annotated[
        bool | None,
        Flag(f"train the last block of a frozen backbone; {defaults_of('fine_tune_last_block')}"),
    ] = None,
    resume_from_checkpoint: Annotated[
        bool | None,
        Flag(
            "start from --checkpoint_path instead of ImageNet weights; "
            f"{defaults_of('resume_from_checkpoint')}"
        ),
    ] = None,
    checkpoint_path: Annotated[
        Path | None,
        Flag("checkpoint to start from; none: RUNS_DIR/best_<backbone>.pt", placeholder="FILE"),
    ] = None,
    batch_size: Annotated[
        int, Flag("films per step; 32 fits any laptop and suits both learning rates", at_least=2)
    ] = 32,
    weight_decay: Annotated[
        float, Flag("weight decay of AdamW; low because few parameters are trained", at_least=0)
    ] = 1e-4,
    step_size: Annotated[int, Flag("epochs between two steps of --scheduler step", at_least=1)] = 3,
    gamma: Annotated[float, Flag("factor of each step of --scheduler step", above=0)] = 0.3,
    class_weight_power: Annotated[
        float,
        Flag(
            "compensation of class imbalance in the loss: 0 none, 1 full, 0.5 in between",
            at_least=0,
        ),
    ] = 0.5,
    vary_acquisition: Annotated[
        bool,
        Flag(
            "give training views the gamma, blur, noise, compression and resolution of films of "
            "other hospitals"
        ),
    ] = True,
    even_exposure: Annotated[
        bool,
        Flag(
            "with --crop lungs, give the crop of every film the same mean and deviation of grey "
            "levels"
        ),
    ] = True,
    film_side: Annotated[
        int,
        Flag(
            "with --crop lungs, pixels per side that every film is brought to before the crop: "
            "what is finer is lost on all of them",
            at_least=128,
        ),
    ] = FILM_SIDE,
    cache: Annotated[
        Literal["on", "off"],
        Flag(
            "on: frozen layers compute each view once and keep it in DATA_DIR/cache; "
            "off: PyTorch computes them in every epoch, in fp32"
        ),
    ] = "on",
    views: Annotated[
        int | None,
        Flag(
            "augmented views per film in the cache, used in turn; auto: up to 4, as many as fit",
            at_least=1,
            placeholder="auto|N",
        ),
    ] = None,
    cache_gb: Annotated[float, settings.CACHE_GB] = settings.CACHE_GB.default,
    cluster: Annotated[str, settings.CLUSTER] = settings.CLUSTER.default,
    precision: Annotated[PrecisionChoice, settings.PRECISION] = settings.PRECISION.default,
    crop: Annotated[Crop, settings.CROP] = settings.CROP.default,
    restart: Annotated[
        bool, Flag("train anew even if a run with the same settings is interrupted or finished")
    ] = False,
    seed: Annotated[int, settings.SEED] = settings.SEED.default,
    data_dir: Annotated[Path, settings.DATA_DIR] = settings.DATA_DIR.default,
    runs_dir: Annotated[Path, settings.RUNS_DIR] = settings.RUNS_DIR.default,
    cpus: Annotated[int, settings.CPUS] = settings.CPUS.default,
    workers: Annotated[int, settings.WORKERS] = settings.WORKERS.default,
) -> int:
    """Train one phase on data/train and keep the epoch with the best accuracy on data/val.

    Writes runs/phase_<a|b>/, runs/best_<backbone>.pt, and runs/model/, the compiled model that
    evaluate and predict_batch use.

    Films are converted to grey, resized to the backbone's input and normalised with its statistics.
    Training views are rotated, shifted, scaled and exposed a little differently, never mirrored,
    and look as if they came from other detectors and archives (--vary_acquisition).
    A small segmenter finds the lungs, and the film is cropped to the box around them; where it
    finds none the whole film is used. Every film is brought to the same number of pixels before
    (--film_side), and every crop gets the same mean and deviation of grey levels (--even_exposure).
    The model records all three and carries the segmenter, so that evaluate and predict_batch see
    the same pixels. With --crop none the network sees whole films as
    they are exposed. Frozen layers keep their parameters and their BatchNorm statistics. Phase B
    counts Phase A's score as epoch 0, so it is never worse on validation.

    The outputs of frozen layers are cached in data/cache/features, for both phases: each view of a
    film passes them once. --views, disk and memory limit the number of views; where not even one
    fits, the frozen layers run in every epoch. --nofreeze_backbone trains without a cache, in fp32.
    --cluster fills the cache on the nodes of a Ray cluster, which must see DATA_DIR under the same
    path; the epochs run on this machine.

    The run can be stopped at any time (Ctrl-C, SIGTERM, kill -9): the same command continues it and
    ends with bit-identical weights. State is saved after every epoch, every minute and on a signal.
    Changed settings start a new run; the folder of a finished one becomes
    runs/phase_<a|b>.previous.

    Refused before any work: --nofreeze_backbone with --fine_tune_last_block; --checkpoint_path
    without resuming; --cluster, --views or --precision bf16 without a cache; a checkpoint of
    another backbone, other classes, another split, another crop, exposure or film side; a class
    without training or validation films.

    Examples:
        python -m jobs.train --phase a
        python -m jobs.train --phase b --epochs 12 --lr 3e-4
        python -m jobs.train --phase a --backbone resnet18 --scheduler cosine --epochs 8
    """
    overrides = Overrides(
        epochs, lr, scheduler, freeze_backbone, fine_tune_last_block, resume_from_checkpoint
    )
    plan = plan_of(
        phase,
        overrides,
        backbone=backbone,
        batch_size=batch_size,
        weight_decay=weight_decay,
        step_size=step_size,
        gamma=gamma,
        class_weight_power=class_weight_power,
        seed=seed,
        cache=cache == "on",
        views=views,
        precision=precision,
        crop=crop,
        even_exposure=even_exposure,
        film_side=film_side,
        vary_acquisition=vary_acquisition,
        checkpoint_path=checkpoint_path,
        cluster=cluster,
    )
    signals.import_torch()
    from lib.training.batches import batches_of
    from lib.training.films import SplitFilms
    from lib.training.loop import Trainer
    from lib.training.machines import Machines
    from lib.training.publication import publish
    from lib.training.run_folder import RunFolder, RunIdentity
    from lib.training.starting_weights import starting_weights

    with (
        atomic.lock(runs_dir, "the runs folder"),
        Machines(cluster, cpus, workers, data_dir) as machines,
    ):
        split = SplitFilms.read(data_dir)
        start = starting_weights(plan, runs_dir, checkpoint_path, split)
        run = RunFolder(
            runs_dir, RunIdentity.of(plan, machines.precision(plan.precision), split, start)
        )
        if run.is_finished() and not restart:
            run.publish_again()
            return DONE
        network = start.build_network(plan, len(split.classes), machines.cores)
        batches = batches_of(plan, network, split, machines, run.views(restart), cache_gb)
        run.begin(batches.views, start, restart, machines.cores)
        history = Trainer(plan, network, batches, run).resume_or_start()
        publish(run, network, history, split, batches.frozen_graphs, machines.cores)
    return DONE


if __name__ == "__main__":
    execute.run(train)
