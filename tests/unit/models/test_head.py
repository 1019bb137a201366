"""Heads: files as LAION publishes them, read, installed, and as a loss."""

import pytest
import torch
from torch import nn

from tests.support.fakes import FakeClip, FakeVqgan, aim, unit
from tests.support.runs import metrics_of, record_of
from vqclip.core.interfaces import Head, LoopInputs, Reference
from vqclip.core.loop import clip_guidance
from vqclip.errors import IntegrityError, ModelError
from vqclip.models import catalogue, install, load_head, store
from vqclip.models.head import load
from vqclip.runs.api import generate
from vqclip.settings.schema import Settings

CPU = torch.device("cpu")
TALK = install.InstallContext(lambda done, total: None, lambda text: None)
QUICK = {"steps": 3, "size": (32, 32), "cutouts": 2, "seed": 7, "init": "grey", "upscale": 0}


class Predictor(nn.Module):
    """The shape of LAION's improved predictor, narrower."""

    def __init__(self, width=32):
        super().__init__()
        torch.manual_seed(3)
        linear, drop = nn.Linear, nn.Dropout
        self.layers = nn.Sequential(linear(width, 24), drop(0.2), linear(24, 12), drop(0.2), linear(12, 6), drop(0.1),
                                    linear(6, 4), linear(4, 1))  # fmt: skip

    def forward(self, x):
        return self.layers(x)


def linear(width=32):
    torch.manual_seed(4)
    return nn.Linear(width, 1)


@pytest.fixture(params=[Predictor, linear])
def published(request, tmp_path):
    """Return a network and its file, as torch.save writes one."""
    network = request.param().eval()
    torch.save(network.state_dict(), tmp_path / "head.pth")
    return network, tmp_path / "head.pth"


def test_the_mark_is_that_of_the_published_network(published):
    network, file = published
    embeds, head = unit(50, 32, seed=1), load(file, device=CPU)
    assert torch.allclose(embeds @ head.weight + head.bias, network(embeds)[:, 0], atol=1e-6)


def test_a_head_is_installed_and_loads(published):
    network, file = published
    assert install.kind_of("mine", str(file)) == "head"
    entry = install.import_file("head", "mine", str(file), TALK)
    assert store.installed("head") == ["mine"]
    assert entry.weights.suffix == ".safetensors"
    embeds, head = unit(5, 32, seed=1), load_head("mine", CPU)
    assert torch.allclose(embeds @ head.weight + head.bias, network(embeds)[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    "tensors",
    [
        {"layers.0.weight": torch.ones(4, 8), "layers.0.bias": torch.ones(4)},  # four numbers in the end
        {"layers.0.weight": torch.ones(4, 8), "layers.0.bias": torch.ones(4), "layers.2.weight": torch.ones(1, 5),
         "layers.2.bias": torch.ones(1)},
        {"weight": torch.ones(1, 8)},
        {"weight": torch.ones(8), "bias": torch.ones(1)},
        {"body.0.weight": torch.ones(1, 8), "body.0.bias": torch.ones(1), "more": torch.ones(1)},
        {f"layers.{k}.{part}": torch.ones(1, 1) if part == "weight" else torch.ones(1)
         for k in range(20) for part in ("weight", "bias")},
    ],
)  # fmt: skip
def test_other_layers_are_refused(tmp_path, tensors):
    torch.save(tensors, tmp_path / "x.pth")
    with pytest.raises(ModelError):
        load(tmp_path / "x.pth", device=CPU)


def test_numbers_that_are_none_are_refused(tmp_path):
    torch.save({"weight": torch.full((1, 8), float("nan")), "bias": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(IntegrityError):
        load(tmp_path / "x.pth", device=CPU)


def test_the_catalogues_heads_are_for_a_clip_that_it_has():
    for facts in catalogue.catalogue().models["head"].values():
        assert set(facts.needs) <= catalogue.catalogue().models["clip"].keys()


def test_descent_raises_the_mark():
    head, image = Head(unit(32, seed=2) * 20, 5.0), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    inputs = LoopInputs(FakeVqgan(), [FakeClip()], aim([FakeClip()], "x"), Settings(prompt="x", cutouts=4),
                        references=[Reference(head=head)])  # fmt: skip
    adam, losses = torch.optim.Adam([image.requires_grad_()], 0.02), []
    for _ in range(20):
        adam.zero_grad()
        seen, total = clip_guidance(image, inputs, {"prompt": 0.0, "aesthetic": 1.0}, [0], [1], 0)
        total.sum().backward()
        adam.step()
        losses.append(float(seen["aesthetic"]))
    assert losses[-1] < losses[0] - 0.3  # three marks of ten


def test_a_run_with_a_head_of_ones_own(networks, tmp_path):
    torch.save(Predictor().state_dict(), tmp_path / "head.pth")
    torch.save(Predictor(16).state_dict(), tmp_path / "narrow.pth")
    made = generate("x", runs=tmp_path, aesthetic_weight=2.0, head=str(tmp_path / "head.pth"), **QUICK)
    assert all(line["aesthetic"] for line in metrics_of(made.run))
    assert record_of(made.run)["models"]["head"]["name"] == "head.pth"
    with pytest.raises(ModelError, match="16 numbers"):
        generate("x", aesthetic_weight=2.0, head=str(tmp_path / "narrow.pth"), **QUICK)


def test_a_head_for_no_clip_here_is_refused_before_anything_is_loaded(networks, tmp_path):
    torch.save(linear(32).state_dict(), tmp_path / "head.pth")
    with pytest.raises(ModelError, match="not installed"):
        generate("x", aesthetic_weight=1.0, **QUICK)
    install.import_file("head", "mine", str(tmp_path / "head.pth"), TALK)
    catalogue.catalogue().models["head"]["mine"] = catalogue.Facts(needs=["ViT-L-14-quickgelu:openai"])
    with pytest.raises(ModelError, match="ViT-L-14"):
        generate("x", aesthetic_weight=1.0, head="mine", **QUICK)
    assert networks.loaded == []
