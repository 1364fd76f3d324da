"""Random views of pictures, a batch at a time: float32 (n, 3, side, side), 0 to 255 until normalized."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from training import MEAN, STD


def cropped(pixels: Tensor, size: int, least: float) -> Tensor:
    """Random resized crops with a flip; `least` is the smallest share of the area."""
    n = len(pixels)
    uniform = lambda low, high: torch.empty(n, device=pixels.device).uniform_(low, high)  # noqa: E731
    area, ratio = uniform(least, 1), torch.exp(uniform(-0.25, 0.25))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    theta = torch.zeros(n, 2, 3, device=pixels.device)
    theta[:, 0, 0] = width * torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = height
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def recoloured(pixels: Tensor) -> Tensor:
    """Random brightness, contrast, colour and saturation; one in ten grey. In and out 0 to 255."""
    n = len(pixels)
    factor = lambda low, high, *shape: torch.empty(n, *shape, device=pixels.device).uniform_(low, high)  # noqa: E731
    grey = pixels.mean(1, keepdim=True)
    saturation = factor(0.5, 1.4, 1, 1, 1) * (factor(0, 1, 1, 1, 1) > 0.1)
    gain, contrast = factor(0.7, 1.3, 1, 1, 1) * factor(0.92, 1.08, 3, 1, 1), factor(0.7, 1.3, 1, 1, 1)
    mean = grey.mean((2, 3), keepdim=True)
    # contrast about the mean and saturation about the grey, in one pass over the pixels
    return (
        pixels.mul_(saturation)
        .add_(grey * (1 - saturation))
        .sub_(mean)
        .mul_(contrast)
        .add_(mean)
        .mul_(gain)
        .clamp_(0, 255)
    )


def normalized(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    return pixels.sub_(mean).div_(std)


def cut_mix(pictures: Tensor, other: Tensor) -> tuple[Tensor, float]:
    """A box of each picture comes from another, and the share of the picture that stays (Yun et al. 2019)."""
    size = pictures.shape[-1]
    side = int(size * math.sqrt(1 - float(torch.empty(()).uniform_(0.3, 1))))
    top, left = (int(torch.randint(0, size - side + 1, ())) for _ in range(2))
    box = (..., slice(top, top + side), slice(left, left + side))
    mixed = pictures.clone()
    mixed[box] = pictures[other][box]
    return mixed, 1 - (side / size) ** 2
