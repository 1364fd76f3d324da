"""Random views of pictures, a batch at a time: float32 (n, 3, side, side), 0 to 255 until normalized."""

import torch
import torch.nn.functional as F
from open_clip.constants import IMAGENET_MEAN, IMAGENET_STD
from torch import Tensor


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


def recoloured(pixels: Tensor, strength: float) -> Tensor:
    """Random brightness, contrast and colours, `strength` in ten grey; changes its argument."""
    n = len(pixels)

    def factor(spread: float, channels: int = 1) -> Tensor:
        low, high = 1 - spread * strength, 1 + spread * strength
        return torch.empty(n, channels, 1, 1, device=pixels.device).uniform_(low, high)

    grey = pixels.mean(1, keepdim=True)
    saturation = factor(0.45) * (torch.rand(n, 1, 1, 1, device=pixels.device) > 0.1 * strength)
    mean = grey.mean((2, 3), keepdim=True)
    pixels = pixels.mul_(saturation).add_(grey * (1 - saturation))
    pixels = pixels.sub_(mean).mul_(factor(0.3)).add_(mean)  # contrast
    return pixels.mul_(factor(0.3) * factor(0.08, 3)).clamp_(0, 255)


def normalized(pixels: Tensor) -> Tensor:
    """By the mean and deviation of ImageNet; changes its argument."""
    both = torch.tensor([IMAGENET_MEAN, IMAGENET_STD], device=pixels.device) * 255
    mean, std = both.view(2, 1, 3, 1, 1)
    return pixels.sub_(mean).div_(std)
