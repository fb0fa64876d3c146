"""The network of the lung segmenter: a small encoder-decoder with a head for the orientation."""

from torch import Tensor, nn
from torch.nn import functional

SIDE = 128  # pixels of the square input
CELL = 4  # pixels of the square that one position of the finest feature map covers
ORIENTATIONS = ("upright", "turned 90", "turned 180", "turned 270", "no lungs")


def _block(channels_in: int, channels_out: int, stride: int = 1, dilation: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, dilation, dilation, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class LungNet(nn.Module):
    """Grey films `(B, 1, 128, 128) float32` in 0 to 255 to mask logits `(B, 2, 128, 128)` and
    orientation logits `(B, 5)`.

    Mask 0 is the lungs with what lies behind the heart, mask 1 the lung fields beside it. Each
    film is standardised inside the network, so that exposure and contrast do not matter. All
    convolutions run at 32 x 32 or below, which is what keeps a film at a millisecond of a core.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = _block(CELL * CELL, 24)  # 32 x 32
        self.middle = nn.Sequential(_block(24, 40, 2), _block(40, 40))  # 16 x 16
        self.coarse = nn.Sequential(_block(40, 64, 2), _block(64, 96), _block(96, 96, dilation=2))
        self.to_middle, self.to_fine = nn.Conv2d(96, 40, 1), nn.Conv2d(40, 24, 1)
        self.up_middle, self.up_fine = _block(40, 40), _block(24, 24)
        self.masks = nn.Conv2d(24, 2 * CELL * CELL, 1)
        self.orientation = nn.Sequential(  # keeps the place of what it sees: up differs from down
            nn.Conv2d(96, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 32), nn.ReLU(),
            nn.Linear(32, 5),
        )  # fmt: skip

    def forward(self, films: Tensor) -> tuple[Tensor, Tensor]:
        centred = films - films.mean((1, 2, 3), keepdim=True)
        spread = centred.square().mean((1, 2, 3), keepdim=True).sqrt()
        fine = self.fine(functional.pixel_unshuffle(centred / (spread + 4.0), CELL))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        up = self.up_middle(middle + _twice(self.to_middle(coarse)))
        up = self.up_fine(fine + _twice(self.to_fine(up)))
        masks = functional.pixel_shuffle(self.masks(up), CELL)
        return masks, self.orientation(coarse)


def _twice(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2, mode="nearest")
