"""The peers' default settings, re-expressed on our models: what they do to a picture, not their code.

nerdyrodent: `generate.py` at 592d555, cut method `latest`; rkhamilton: `vqgan_clip` at f0a2fb3, cut method `kornia`.
Both: 32 cutouts, Adam with a learning rate of 0.1 whatever the codebook, random codes as the start, the last
latent as the result, no schedule. Differs from them in reading CLIP's size and normalisation from the model.
"""

from collections.abc import Callable, Iterator

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqclip.core.loop import Step
from vqclip.core.losses import spherical_distance
from vqclip.core.quantize import lookup, nearest, quantize
from vqclip.core.straight_through import clamp_with_grad
from vqclip.runs.session import Session

CUTOUTS, LR, NOISE = 32, 0.1, 0.1

LATEST = nn.Sequential(
    K.RandomAffine(degrees=15, translate=(0.1, 0.1), shear=5, p=0.7, padding_mode="zeros"),
    K.RandomPerspective(distortion_scale=0.7, p=0.7),
    K.ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1, p=0.7),
    K.RandomErasing(scale=(0.1, 0.4), ratio=(0.3, 1 / 0.3), same_on_batch=True, p=0.7),
)
KORNIA = nn.Sequential(
    K.RandomHorizontalFlip(p=0.5),
    K.ColorJitter(hue=0.01, saturation=0.01, p=0.7),
    K.RandomSharpness(0.3, p=0.4),
    K.RandomAffine(degrees=30, translate=(0.1, 0.1), p=0.8, padding_mode="border"),
    K.RandomPerspective(distortion_scale=0.2, p=0.4),
)


def latest(image: Tensor, size: int) -> Tensor:
    """Pool the whole picture to CLIP's size, once for every cutout, then augment."""
    pooled = [(F.adaptive_avg_pool2d(image, size) + F.adaptive_max_pool2d(image, size)) / 2 for _ in range(CUTOUTS)]
    return _grain(LATEST(torch.cat(pooled)))


def kornia(image: Tensor, size: int) -> Tensor:
    """Cut random squares between CLIP's size and the short side (cut_pow 1), resample, augment."""
    height, width = image.shape[-2:]
    large, small = min(height, width), min(height, width, size)
    crops = []
    for _ in range(CUTOUTS):
        side = int(torch.rand(()) * (large - small) + small)
        left, top = (int(torch.randint(0, edge - side + 1, ())) for edge in (width, height))
        crop = image[..., top : top + side, left : left + side]
        crops.append(F.interpolate(crop, (size, size), mode="bicubic", align_corners=True).clamp(0, 1))
    return _grain(KORNIA(torch.cat(crops)))


def _grain(views: Tensor) -> Tensor:
    return views + torch.rand(len(views), 1, 1, 1, device=views.device) * NOISE * torch.randn_like(views)


def peer_steps(session: Session, views: Callable[[Tensor, int], Tensor]) -> Iterator[Step]:
    """Run a peer's loop on a session's models and targets."""
    torch.manual_seed(session.settings.seed)
    book, vqgan = session.vqgan.codebook, session.vqgan
    z = lookup(torch.randint(len(book), (1, *session.start().z.shape[-2:])), book).clone().requires_grad_()
    low, high = (edge[:, None, None] for edge in book.aminmax(dim=0))
    optimizer = torch.optim.Adam([z], lr=LR)
    before = nearest(z, book)
    for step in range(session.settings.steps):
        image = clamp_with_grad(vqgan.decode(quantize(z, book)), 0, 1)
        loss = torch.zeros(())
        for clip, target in zip(session.clips, session.targets, strict=True):
            distance = spherical_distance(clip.encode_image(views(image, clip.size))[:, None], target.embeds)
            loss = loss + (distance * target.weights).mean(0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            z.clamp_(low, high)
        now = nearest(z, book)
        yield Step(step + 1, z.detach().clone(), {"prompt": loss.detach()[None]}, float((now != before).float().mean()))
        before = now
