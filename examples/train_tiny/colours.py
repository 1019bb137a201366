"""Colour names for captions: what a picture's main colour is called, and how to change it."""

import numpy as np
import torch

# Representative sRGB values, 0..1, of the colour names that captions use.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.87, 0.15, 0.18),
    "orange": (0.96, 0.55, 0.13),
    "yellow": (0.98, 0.83, 0.22),
    "green": (0.25, 0.65, 0.28),
    "blue": (0.20, 0.45, 0.90),
    "purple": (0.55, 0.28, 0.78),
    "pink": (0.96, 0.55, 0.72),
    "brown": (0.52, 0.33, 0.20),
    "black": (0.08, 0.08, 0.09),
    "white": (0.98, 0.98, 0.98),
    "gray": (0.55, 0.56, 0.58),
}
# Shades beside the plain names; only used for backgrounds.
SHADES: dict[str, tuple[float, float, float]] = {
    "light blue": (0.62, 0.82, 0.97),
    "dark blue": (0.07, 0.12, 0.38),
    "light green": (0.66, 0.90, 0.60),
    "dark green": (0.05, 0.28, 0.14),
    "turquoise": (0.18, 0.78, 0.76),
    "beige": (0.94, 0.88, 0.76),
    "dark red": (0.45, 0.05, 0.08),
    "light gray": (0.84, 0.85, 0.86),
}
# Hue in turns, for the colours that a hue rotation can reach.
HUES = {"red": 0.99, "orange": 0.085, "yellow": 0.135, "green": 0.34, "blue": 0.60,
        "purple": 0.755, "pink": 0.92}  # fmt: skip


def rgb_to_hsv(rgb: np.ndarray) -> np.ndarray:
    """Convert `[..., 3]` sRGB in 0..1 to hue (turns), saturation, value."""
    high, low = rgb.max(-1), rgb.min(-1)
    chroma = high - low
    safe = np.where(chroma == 0, 1, chroma)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    hue = np.where(high == r, (g - b) / safe, np.where(high == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = np.where(chroma == 0, 0, hue / 6 % 1)
    return np.stack([hue, np.where(high == 0, 0, chroma / np.where(high == 0, 1, high)), high], -1)


def name_pixels(rgb: np.ndarray) -> np.ndarray:
    """Name each pixel of `[N, 3]` sRGB 0..1: an array of colour names."""
    h, s, v = np.moveaxis(rgb_to_hsv(rgb), -1, 0)
    names = np.select(
        [h < 0.035, h < 0.11, h < 0.18, h < 0.47, h < 0.70, h < 0.83, h < 0.965],
        ["red", "orange", "yellow", "green", "blue", "purple", "pink"], "red",
    )  # fmt: skip
    names = np.where((h > 0.02) & (h < 0.12) & (v < 0.66) & (s > 0.25), "brown", names)
    names = np.where(((names == "red") | (names == "pink")) & (s < 0.55) & (v > 0.8), "pink", names)
    names = np.where(s < 0.16, np.select([v < 0.3, v > 0.86], ["black", "white"], "gray"), names)
    return np.where(v < 0.17, "black", names)


def main_colour(rgba: np.ndarray, share: float = 0.55) -> str | None:
    """Name the colour of at least `share` of the opaque pixels of `[H, W, 4]` uint8, or None."""
    pixels = rgba.reshape(-1, 4)
    pixels = pixels[pixels[:, 3] > 200][:, :3] / 255
    if len(pixels) < 50:
        return None
    names, counts = np.unique(name_pixels(pixels), return_counts=True)
    return str(names[counts.argmax()]) if counts.max() >= share * len(pixels) else None


def recolour(rgb: torch.Tensor, old: str, new: str) -> torch.Tensor:
    """Rotate the hue of `[3, H, W]` in 0..1 so that what was `old` becomes `new` (both in HUES)."""
    high, low = rgb.amax(0), rgb.amin(0)
    chroma = (high - low).clamp(min=1e-6)
    r, g, b = rgb
    sector = torch.where(
        high == r, (g - b) / chroma, torch.where(high == g, 2 + (b - r) / chroma, 4 + (r - g) / chroma)
    )
    hue = torch.where(high == low, 0.0, sector / 6) + HUES[new] - HUES[old]
    saturation, value = (high - low) / high.clamp(min=1e-6), high
    if new == "pink":
        saturation, value = saturation * 0.6, 0.3 + 0.7 * value
    k = (torch.tensor([5.0, 3.0, 1.0], device=rgb.device)[:, None, None] + hue * 6) % 6
    return value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1)
