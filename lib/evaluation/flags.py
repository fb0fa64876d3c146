"""The flags of evaluate alone: help and valid values. The job has their types and defaults."""

from lib.network.backbones import BACKBONES
from lib.run.flags import Flag

MODEL = Flag("folder of the compiled model; none: RUNS_DIR/model", placeholder="DIR")
CHECKPOINT_PATH = Flag(
    "score this checkpoint instead: it is compiled first, in fp32", placeholder="FILE"
)
BACKBONE = Flag("refuse a model of another backbone; none accepts any", choices=tuple(BACKBONES))
FILMS = Flag(
    "score the films of this folder of class folders, or of a bucket such as "
    "s3://bucket/folder, instead of the split's test films; it is never changed",
    placeholder="PATH|folder:PATH|URL",
)
PREDICTIONS = Flag(
    "score this table of predict_batch on the films that --labels names, without films; "
    "--model names the one that answered, if it is not in RUNS_DIR",
    placeholder="TABLE",
)
LABELS = Flag(
    "labels of --films in place of class folders, or of --predictions: a CSV with the "
    "columns path, label and, if known, patient, or Label Studio's export",
    placeholder="FILE.csv|FILE.json",
)
GROUP_BY = Flag(
    "how to tell a patient of --films from a path, as for split",
    placeholder="auto|none|REGEX",
)
OUTPUT = Flag(
    "folder for the results; none: RUNS_DIR/evaluation, and for --films "
    "RUNS_DIR/external/NAME with the folder's name",
    placeholder="DIR",
)
POSITIVE = Flag(
    "class of interest, or abnormal (1 - P(NORMAL)), for the operating point; none: "
    "TUBERCULOSIS, if the model has it",
    placeholder="CLASS|abnormal",
)
OPERATING_POINT = Flag(
    "predict this class, or anything abnormal, from its stored threshold on, as "
    "predict_batch does with the same flag",
    placeholder="CLASS|abnormal",
)
PREVALENCES = Flag(
    "prevalences of the class of interest to compute predictive values for",
    above=0,
    below=1,
    placeholder="X,X",
)
COMPARE = Flag("folder of another evaluation of the same films: add the paired differences")
RECALIBRATE = Flag(
    "write a model for the place of --films to this folder: same weights, calibrated on "
    "these films",
    placeholder="DIR",
)
PREVALENCE = Flag(
    "share of films of a class where the model of --recalibrate will work; none: as in --films",
    placeholder="CLASS=X,CLASS=X",
)
BASELINES = Flag("score baselines that see no lung beside the model, and probe its features")
LEAVE_SOURCE_OUT = Flag(
    "train again without each source that shares two classes with another one, and score inside it"
)
REPEATS = Flag(
    "also draw the split and train the head anew with this many seeds, and report the "
    "spread of the scores",
    at_least=0,
)
