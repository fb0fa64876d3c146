"""The settings that several jobs share: flag, environment variable, default.

A flag overrides the environment; .env counts as environment. `.env.example` explains the same
names; a test compares the two.
"""

from pathlib import Path
from typing import get_args

from lib.images.files import FILE_SECONDS, MAX_PIXELS
from lib.network.backbones import BACKBONES
from lib.network.choices import Crop, PrecisionChoice
from lib.run.flags import Setting

DATA_DIR = Setting("folder of films, splits and caches", env="DATA_DIR", default=Path("data"))
RUNS_DIR = Setting(
    "folder for checkpoints, scores and predictions",
    env="RUNS_DIR",
    default=Path("runs"),
)
DATASET = Setting(
    "source of the films: kaggle, kaggle:OWNER/NAME[/versions/N], folder:PATH, or "
    "generated films: phantom, phantom:confounded, phantom:elsewhere",
    env="DATASET",
    default="kaggle",
    placeholder="SOURCE",
)
BACKBONE = Setting(
    "pretrained network",
    choices=tuple(BACKBONES),
    env="BACKBONE",
    default="efficientnet_b0",
)
WEIGHTS = Setting(
    "file with the backbone's ImageNet weights, for machines that cannot download them",
    env="WEIGHTS",
    default=None,
    placeholder="FILE",
)
SEED = Setting(
    "random seed; runs with the same seed are reproducible",
    at_least=0,
    below=2**32,
    env="SEED",
    default=0,
)
CPUS = Setting(
    "cores to use; 0: all that the container's quota and the affinity mask allow",
    at_least=0,
    env="CPUS",
    default=0,
)
WORKERS = Setting(
    "threads or processes that decode films; 0: one per core; no effect on results",
    at_least=0,
    env="WORKERS",
    default=0,
)
CACHE_GB = Setting(
    "disk space in GB for cached activations in DATA_DIR/cache; 0: half of the free space",
    at_least=0,
    env="CACHE_GB",
    default=0,
)
PRECISION = Setting(
    "precision of the compiled graphs; auto: bf16, else int8, if CPU and model allow it, else fp32",
    choices=get_args(PrecisionChoice),
    env="PRECISION",
    default="auto",
)
CROP = Setting(
    "part of a film that the network sees: lungs, the box around the lungs; none, the whole film",
    choices=get_args(Crop),
    env="CROP",
    default="lungs",
)

MAX_MEGAPIXELS = Setting(
    "size limit of a film in megapixels, checked in the file's header",
    above=0,
    placeholder="X",
    env="MAX_MEGAPIXELS",
    default=MAX_PIXELS / 1e6,
)
FILE_TIMEOUT = Setting(
    "time limit in seconds for decoding one file",
    above=0,
    placeholder="X",
    env="FILE_TIMEOUT",
    default=FILE_SECONDS,
)
FOLLOW_LINKS = Setting(
    "follow symbolic links to folders and files elsewhere; each folder is entered once",
    env="FOLLOW_LINKS",
    default=False,
)
TRUST_HEADERS = Setting(
    "read DICOM files whose headers do not say that they are frontal chest films; "
    "headers that say otherwise are refused all the same",
    env="TRUST_HEADERS",
    default=False,
)
CLUSTER = Setting(
    "Ray cluster to compute on: auto on one of its machines, ray://HEAD:10001 from elsewhere",
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
    CROP,
    MAX_MEGAPIXELS,
    FILE_TIMEOUT,
    FOLLOW_LINKS,
    TRUST_HEADERS,
    CLUSTER,
)
