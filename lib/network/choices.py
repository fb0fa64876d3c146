"""The closed sets of words that checkpoints, model folders and flags share. Torch-free."""

from typing import Literal

Phase = Literal["a", "b"]  # a: feature extraction, b: fine-tuning
Precision = Literal["fp32", "bf16", "int8"]  # what a compiled graph computes in
PrecisionChoice = Literal["auto", "fp32", "bf16", "int8"]  # what --precision takes
Crop = Literal[
    "none", "lungs"
]  # what the network sees: the whole film, or the box around its lungs
FILM_SIDE = 250  # pixels per side that films are brought to before the crop: an eighth of 2000
Tap = Literal["cut", "pooled"]  # outputs of the frozen backbone, below and behind its last block
TAPS: tuple[Tap, ...] = ("cut", "pooled")  # in the order of the graph's outputs
