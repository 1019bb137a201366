"""The middle layers of image encoders: what open_clip's own function says of the same network."""

import copy

import open_clip
import pytest
import torch

from vqclip.errors import ModelError
from vqclip.models import load_clip
from vqclip.models.clip import freeze

CPU = torch.device("cpu")
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {
    "vit": ({"image_size": 32, "layers": 8, "width": 32, "head_width": 16, "patch_size": 8}, [1, 3, 5]),
    "resnet": ({"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}, [1, 2, 3]),
}


def build(vision):
    torch.manual_seed(0)
    model = open_clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=TEXT).eval()
    model.visual.preprocess_cfg = {"size": vision["image_size"], "mean": (0.5,) * 3, "std": (0.25,) * 3}
    return model


@pytest.mark.parametrize("kind", VISION)
def test_middle_layers_are_those_that_open_clip_names(kind):
    vision, indices = VISION[kind]
    model = build(vision)
    image = torch.rand(3, 3, vision["image_size"], vision["image_size"], generator=torch.Generator().manual_seed(1))
    clip = freeze("x", copy.deepcopy(model), None, CPU)
    with torch.no_grad():
        embeds, layers = clip.encode_layers(image)
        normalized = (image - clip.mean) / clip.std
        expected = model.visual.forward_intermediates(normalized, indices=indices, intermediates_only=True)
        assert torch.equal(embeds, clip.encode_image(image))
    for ours, theirs in zip(layers, expected["image_intermediates"], strict=True):
        assert torch.allclose(ours, theirs.flatten(2), atol=1e-4)


def test_the_bundled_clip_has_layers_of_three_depths():
    clip = load_clip("tiny", CPU)
    image = torch.rand(2, 3, clip.size, clip.size, generator=torch.Generator().manual_seed(1), requires_grad=True)
    embeds, layers = clip.encode_layers(image)
    assert torch.equal(embeds, clip.encode_image(image))
    assert [(len(layer), layer.shape[1], layer.shape[2]) for layer in layers] == [
        (2, channels, (clip.size // stride) ** 2) for channels, stride in ((24, 4), (40, 8), (112, 16))
    ]
    sum(layer.square().mean() for layer in layers).backward()
    assert image.grad.abs().sum() > 0


def test_an_encoder_whose_layers_are_not_known_is_refused():
    class Plain(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :16]

    model = build(VISION["resnet"][0])
    plain = Plain()
    plain.preprocess_cfg, model.visual = model.visual.preprocess_cfg, plain
    clip = freeze("x", model, None, CPU)
    with pytest.raises(ModelError, match="middle layers"):
        clip.encode_layers(torch.rand(1, 3, 64, 64))
