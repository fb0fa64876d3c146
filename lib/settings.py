"""The settings that several jobs share: one table. A flag wins over the environment, .env counts as
environment.

`.env.example` explains the same names to the person who edits it; a test holds the two together.
"""

from pathlib import Path

from lib.network.backbones import BACKBONES
from lib.run.flags import Setting

DATA_DIR = Setting(
    "films, splits and caches live below this folder", env="DATA_DIR", default=Path("data")
)
RUNS_DIR = Setting(
    "checkpoints, scores and predictions are written below this folder",
    env="RUNS_DIR",
    default=Path("runs"),
)
DATASET = Setting(
    "where films come from: kaggle, kaggle:OWNER/NAME[/versions/N], folder:PATH or phantom",
    env="DATASET",
    default="kaggle",
    placeholder="SOURCE",
)
BACKBONE = Setting(
    "network whose ImageNet features are used",
    choices=tuple(BACKBONES),
    env="BACKBONE",
    default="efficientnet_b0",
)
WEIGHTS = Setting(
    "file with the backbone's ImageNet weights, for networks that cannot download them",
    env="WEIGHTS",
    default=None,
    placeholder="FILE",
)
SEED = Setting(
    "start of every random choice; same seed, same result",
    at_least=0,
    below=2**32,
    env="SEED",
    default=0,
)
CPUS = Setting(
    "cores to use; 0 takes what the container's quota and the affinity mask allow",
    at_least=0,
    env="CPUS",
    default=0,
)
WORKERS = Setting(
    "threads that read films beside the computation; 0 means one per core; the result does not depend on it",
    at_least=0,
    env="WORKERS",
    default=0,
)
CACHE_GB = Setting(
    "disk space for activations of frozen layers in DATA_DIR/cache; 0: half of what is free there",
    at_least=0,
    env="CACHE_GB",
    default=0,
)
PRECISION = Setting(
    "numbers the compiled graphs compute in; auto: bf16 where the CPU has it and answers agree, else fp32",
    choices=("auto", "fp32", "bf16"),
    env="PRECISION",
    default="auto",
)

MAX_MEGAPIXELS = Setting(
    "millions of pixels from which a file is refused by its header",
    above=0,
    placeholder="X",
    env="MAX_MEGAPIXELS",
    default=200.0,
)
FILE_TIMEOUT = Setting(
    "seconds after which a file that cannot be decoded is given up",
    above=0,
    placeholder="X",
    env="FILE_TIMEOUT",
    default=20.0,
)
FOLLOW_LINKS = Setting(
    "follow symbolic links to folders and files elsewhere; each folder is entered once",
    env="FOLLOW_LINKS",
    default=False,
)
CLUSTER = Setting(
    "do the expensive part on a Ray cluster: auto on one of its machines, ray://HEAD:10001 from elsewhere",
    env="CLUSTER",
    default="",
    placeholder="ADDRESS",
)

SETTINGS = (
    DATA_DIR,
    RUNS_DIR,
    DATASET,
    BACKBONE,
    WEIGHTS,
    SEED,
    CPUS,
    WORKERS,
    CACHE_GB,
    PRECISION,
    MAX_MEGAPIXELS,
    FILE_TIMEOUT,
    FOLLOW_LINKS,
    CLUSTER,
)
