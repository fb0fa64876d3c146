"""Mixed styles: films that look as if another collection had made them, below the last block."""

import torch
from torch import Tensor

SHARE = 0.5  # of the batches
CONCENTRATION = 0.1  # of the beta distribution: most films keep their style or take the other one


def mix_styles(features: Tensor) -> Tensor:
    """Feature maps `(B, C, h, w)` whose means and deviations per channel are mixed with those of
    another film of the batch.

    Means and deviations of early feature maps tell detector, exposure and processing more than
    what is on the film. A share of the batches is left as it is. Random numbers come from PyTorch's
    global generator.

    Source: K. Zhou, Y. Yang, Y. Qiao, T. Xiang, Domain Generalization with MixStyle, ICLR 2021.
    """
    if float(torch.rand(())) >= SHARE:
        return features
    mean = features.mean((2, 3), keepdim=True)
    deviation = (features.var((2, 3), keepdim=True) + 1e-6).sqrt()
    beta = torch.distributions.Beta(CONCENTRATION, CONCENTRATION)
    own = beta.sample((len(features), 1, 1, 1))
    other = torch.randperm(len(features))
    plain = (features - mean) / deviation
    mixed_deviation = own * deviation + (1 - own) * deviation[other]
    return plain * mixed_deviation + own * mean + (1 - own) * mean[other]
