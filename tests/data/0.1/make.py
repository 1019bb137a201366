"""What vqclip 0.1.0 leaves behind, made by its own commands; this script needs its commit, and no later one runs it.

Release 0.1.0, commit 8dd9bc746e5e360fb63f4058de13898434186777. In a clone of that commit, on Linux:

    export OMP_NUM_THREADS=1 PYTHONPATH=$PWD
    python tests/data/0.1/make.py project     # writes /tmp/vqclip-0.1, then copies it to tests/data/0.1/project
    python tests/data/0.1/make.py expected    # goes on with a copy of it: tests/data/0.1/expected, expected.json
    python tests/data/0.1/make.py compare     # the same in another environment, and how far the pictures are apart

`project` is a folder as a user has one. Everything in it was written by `python -m vqclip`, except the inputs
(models/, models.toml, vqclip.toml in settings/, start.png, prompt.png, clip.mp4, rows.csv, prompts.txt), which are
written here. A run was stopped by SIGINT, or SIGKILL where it is called killed, once it had come as far as ITEMS say;
where exactly it ended, its run.json says. Nothing was changed or deleted afterwards, but for the batches' sheet.png,
which is large and made anew whenever a batch goes on, and empty folders, which git does not keep.

Absolute paths, below /tmp/vqclip-0.1, stand in: the run.json of a run with an init image or image prompts (settings and
`pictures`), of one whose VQGAN or CLIP was given as a file or folder (settings), of a restyled clip (`motion` and
`pictures`); batch.json of a batch with such rows, whose `key` is a hash of the settings, paths among them; models.toml.
Pictures' own metadata have names alone. 0.1.0 goes on with none of these runs once the project lies elsewhere, and takes
such a batch's rows for new ones.

The models of models.toml ("small") are random, by fixed seeds: they keep their meaning when the bundled ones are
trained anew, which ends what the items marked `bundled` can come to.
"""

import gzip
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy
import torch
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).parent
PROJECT = Path("/tmp/vqclip-0.1")
COMMIT = "8dd9bc746e5e360fb63f4058de13898434186777"
SMALL = ["--preset", "small"]
SPARE = ["--frames-every", "12", "--checkpoint-every", "0"]  # few files: one state, at the end
ENV = {
    "VQCLIP_CATALOGUE": str(PROJECT / "models.toml"),
    "VQCLIP_MODELS": str(PROJECT / "store"),
    "HF_HUB_CACHE": "/nowhere",
}
TINY = ["--preset", "tiny", "--frames-every", "6", "--checkpoint-every", "0"]


def lines(path, count):
    """Return a test: whether the one file of this pattern has so many lines."""
    return lambda: any(found.read_bytes().count(b"\n") >= count for found in PROJECT.glob(path))


def files(path, count):
    """Return a test: whether there are so many files of this pattern."""
    return lambda: len(list(PROJECT.glob(path))) >= count


def run(name, when=None, *options, prompt="a red heart", base=SMALL, seed=7, **more):
    """Return an item: a run of `generate`, stopped at so many steps, or finished."""
    path, words = f"runs/{name.replace(' ', '-')}-{seed}", ["generate", prompt, "--seed", str(seed), *base, *options]
    return {
        "path": path,
        "command": [*words, "--runs", f"runs/.{name}"],
        "when": lines(f"runs/.{name}/*/metrics.jsonl", when) if isinstance(when, int) else when,
        "go_on": ["resume", path],
        "pictures": f"{path}/final.png",
        "kind": "run",
        "bundled": base is TINY,
        **more,
    }


BATCH = ["batch", "rows.csv", "-o", "rows-half", *SMALL, *SPARE]
WRITTEN = ["batch", "prompts.txt", "-o", "prompts-done", *SMALL, *SPARE, "--set", "seed=3", "--steps", "8"]
TINY_BATCH = ["batch", "prompts.txt", "-o", "tiny-half", *TINY, "--size", "32x32", "--steps", "10", "--set", "seed=3"]
SAMPLE = ["sample", "an owl", "--preset", "small", "--seed", "5", "--keep", "3"]
STORY = ["--frames", "6", "--steps", "8", "--frame-steps", "3", "--zoom", "1.05", "--turn", "sin(t / 3)", "--fps", "6"]
RESTYLE = ["restyle", "clip.mp4", "a strawberry", "--seed", "4", *SMALL, "--frame-steps", "3"]

# name: how it was made, when it was stopped, how it goes on, and what pictures that comes to.
ITEMS = {
    "stopped": run("stopped", 15, *SPARE),
    "stopped-coarse": run("stopped-coarse", 4, *SPARE),
    "killed": run("killed", 11, "--frames-every", "12", "--checkpoint-every", "4", killed=True),
    "finished": run("finished", None, *SPARE, "-o", "pictures/heart.png", go_on=["resume", "runs/finished-7", "--steps", "30"]),
    "bare": run("bare", None, *SPARE, "--no-metadata", "--steps", "6", "-o", "pictures/bare.png", go_on=[]),
    "latents": run("latents", None, "--save-latents", "--frames-every", "6", "--checkpoint-every", "0", "--steps", "12", "-o", "pictures/heart.jpg", go_on=[]),
    "changed": run("changed", None, *SPARE, "--steps", "6", "-o", "pictures/heart.webp",
                   then=["resume", "runs/changed-7", "--steps", "10", "--set", "tv=1"], go_on=["resume", "runs/changed-7", "--steps", "12"]),
    "drawing": run("drawing", lines("runs/.drawing/*/candidates.json", 1), *SPARE, "--init", "sample", "--candidates", "64"),
    "refining": run("refining", 8, *SPARE, "--init", "sample", "--candidates", "9", "--candidate-weight", "0.5"),
    "pictures": run("pictures", 12, *SPARE, "--init-image", "start.png", "--init-weight", "0.5", "--image-prompt", "prompt.png", "--image-prompt-weight", "0.8"),
    "prompts": run("prompts", 13, *SPARE, prompt="a red heart | a green leaf:0.5 | text:-0.3:0.8"),
    "automatic": run("automatic", 13, *SPARE, "--precision", "auto"),
    "checkpoint": run("checkpoint", 13, *SPARE, "--vqgan", "models/small.ckpt", "--clip", "models/small-clip"),
    "rows-half": {"path": "rows-half", "command": BATCH, "when": lines("rows-half/runs/0002*/metrics.jsonl", 12), "go_on": BATCH,
                  "pictures": "rows-half/0*.png", "kind": "batch", "bundled": False},
    "prompts-done": {"path": "prompts-done", "command": WRITTEN, "go_on": WRITTEN, "pictures": "prompts-done/0*.png", "kind": "batch", "bundled": False},
    "sample-half": {"path": "sample-half", "command": [*SAMPLE, "--count", "64", "-o", "sample-half"], "when": lines("sample-half/candidates.json", 1),
                    "go_on": ["resume", "sample-half"], "pictures": "sample-half/0*.png", "kind": "sample", "bundled": False},
    "sample-done": {"path": "sample-done", "command": [*SAMPLE, "--count", "8", "-o", "sample-done"], "go_on": ["resume", "sample-done"],
                    "pictures": "sample-done/0*.png", "kind": "sample", "bundled": False},
    "story-half": {"path": "runs/a-castle-9", "command": ["story", "a castle", "the sea", "--seed", "9", *SMALL, *STORY], "when": files("runs/.story-half/*/frames/*.png", 3),
                   "go_on": ["resume", "runs/a-castle-9"], "pictures": "runs/a-castle-9/frames/*.png", "kind": "motion", "bundled": False},
    "restyle-half": {"path": "runs/a-strawberry-4", "command": RESTYLE, "when": files("runs/.restyle-half/*/frames/*.png", 3),
                     "go_on": ["resume", "runs/a-strawberry-4"], "pictures": "runs/a-strawberry-4/frames/*.png", "kind": "motion", "bundled": False},
    "tiny-stopped": run("tiny-stopped", 9, "--size", "48x48", "--steps", "14", base=TINY),
    "tiny-finished": run("tiny-finished", None, "--size", "48x48", "--steps", "10", "-o", "pictures/tiny.png", base=TINY,
                         go_on=["resume", "runs/tiny-finished-7", "--steps", "12"]),
    "tiny-refining": run("tiny-refining", 3, "--size", "48x48", "--steps", "8", "--init", "sample", "--candidates", "2", base=TINY),
    "tiny-half": {"path": "tiny-half", "command": TINY_BATCH, "when": lines("tiny-half/runs/0002*/metrics.jsonl", 4), "go_on": TINY_BATCH,
                  "pictures": "tiny-half/0*.png", "kind": "batch", "bundled": True},
    "tiny-story": {"path": "runs/a-castle-8", "command": ["story", "a castle", "the sea", "--seed", "8", "--preset", "tiny", "--size", "32x32", *STORY],
                   "when": files("runs/.tiny-story/*/frames/*.png", 3), "go_on": ["resume", "runs/a-castle-8"], "pictures": "runs/a-castle-8/frames/*.png",
                   "kind": "motion", "bundled": True},
}  # fmt: skip


# ---- the inputs


def weight(name, shape, spread=1.2):
    """Return a tensor that follows from its name alone. RandomState's stream is frozen by NEP 19."""
    wave = numpy.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 1:
        wave = wave * 0.1 + (1.0 if name.endswith("weight") else 0.0)
    elif "embed" in name:
        wave = wave * 0.5
    elif len(shape) > 1:
        wave = wave / numpy.sqrt(numpy.prod(shape[1:])) * spread
    return torch.from_numpy(numpy.asarray(wave)).float()


def write_models(folder):
    """Write a VQGAN as taming's training leaves one, a CLIP in open_clip's folder, a Mini DALL-E in vqclip's."""
    import open_clip

    from tests.checkpoints import lightning
    from vqclip.models.dalle.bart import DalleBart, Shape
    from vqclip.models.taming import TamingVqgan

    folder.mkdir()
    config = {"embed_dim": 4, "n_embed": 32, "ddconfig": {
        "double_z": False, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 1],
        "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}}  # fmt: skip
    shapes = TamingVqgan("small", config).state_dict()
    state = {name: weight(name, value.shape).half() for name, value in shapes.items()}
    torch.save(lightning(state), folder / "small.ckpt")

    (folder / "small-clip").mkdir()
    model = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 24, "vocab_size": 519, "width": 16, "heads": 2, "layers": 1,
                     "tokenizer_kwargs": {"bpe_path": "merges.txt.gz"}},
    }  # fmt: skip
    seen = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "small-clip" / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model, "preprocess_cfg": seen}, indent=1)
    )
    merges = "#version: 0.2\nt h\na n\nr e\nh e\n"
    (folder / "small-clip" / "merges.txt.gz").write_bytes(gzip.compress(merges.encode(), mtime=0))
    clip = open_clip.CLIP(embed_dim=16, vision_cfg=model["vision_cfg"], text_cfg=model["text_cfg"])
    state = {name: weight(f"clip.{name}", value.shape) for name, value in clip.state_dict().items()}
    state["logit_scale"] = torch.tensor(4.6)
    save_file(state, folder / "small-clip" / "open_clip_model.safetensors")

    (folder / "small-dalle").mkdir()
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u0120", *"abcdefghijklmnopqrstuvwxyz", "\u0120a", "th"]
    shape = Shape(width=16, heads=2, hidden=24, encoder_layers=1, decoder_layers=1, words=len(pieces), rows=33, codes=32,
                  text_length=24, image_length=64)  # fmt: skip
    state = {name: weight(f"dalle.{name}", value.shape, 2.0) for name, value in DalleBart(shape).state_dict().items()}
    save_file(state, folder / "small-dalle" / "model.safetensors")
    (folder / "small-dalle" / "vocab.json").write_text(
        json.dumps({piece: number for number, piece in enumerate(pieces)})
    )
    (folder / "small-dalle" / "merges.txt").write_text("#version: 0.2\n\u0120 a\nt h\n", encoding="utf-8")
    (folder / "small-dalle" / "config.json").write_text(
        '{"heads": 2, "codes": 32, "vqgan": "small", "pixels": "vqgan"}\n'
    )


MODELS = """\
# models.toml, as README.md of 0.1.0 tells
[vqgan.small]
path = "{project}/models/small.ckpt"
sha256 = "{sha256}"
about = "random weights"

[clip.small]
path = "{project}/models/small-clip"

[dalle.small]
path = "{project}/models/small-dalle"
needs = ["small"]
guidance = 3.0

[preset.small]
vqgan = "small"
clips = ["small"]
size = [32, 32]
steps = 24
coarse = 0.5
cutouts = 4
precision = "float32"
"""
SETTINGS = """\
# by hand
preset = "small"
prompt = "a house | a tree:0.5"
seed = 11
size = "32x24"
steps = 6
augments = ["flip", "affine"]
clip_weights = [2]
init_image = "../start.png"
init-weight = 0.25
"""
ROWS = """\
prompt,seed,steps,init_image,tv
a red heart,1,,,
an owl,2,30,start.png,1.5
"a fish | a bird:0.5",3,30,,
"""


def write_inputs():
    """Write what a user brings along."""
    from tests.clips import make_clip

    PROJECT.mkdir()
    for name in ("pictures", "runs", "settings"):
        (PROJECT / name).mkdir()
    write_models(PROJECT / "models")
    sha256 = hashlib.sha256((PROJECT / "models" / "small.ckpt").read_bytes()).hexdigest()
    (PROJECT / "models.toml").write_text(MODELS.format(project=PROJECT, sha256=sha256))
    (PROJECT / "settings" / "vqclip.toml").write_text(SETTINGS)
    (PROJECT / "rows.csv").write_text(ROWS)
    (PROJECT / "prompts.txt").write_text("# three of them\na key\na tree:2\n\na sun | a moon:0.5\n")
    ramp = numpy.linspace(0, 255, 40)
    for name, planes in (
        ("start", (ramp[None], ramp[:, None], ramp[None, ::-1])),
        ("prompt", (ramp[:, None], ramp[None], ramp[::-1, None])),
    ):
        pixels = numpy.stack([numpy.broadcast_to(plane, (40, 40)) for plane in planes], -1).astype(numpy.uint8)
        Image.fromarray(pixels).save(PROJECT / f"{name}.png")
    make_clip(PROJECT / "clip.mp4", 5, size=(32, 24), fps="6")


# ---- the commands


def start(words, folder=PROJECT):
    """Start a command of vqclip in the project."""
    return subprocess.Popen(
        [sys.executable, "-m", "vqclip", *words],
        cwd=folder,
        env=os.environ | ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def done(words, folder=PROJECT):
    """Run a command to its end."""
    process = start(words, folder)
    told = process.communicate()[1].decode()
    if process.returncode:
        sys.exit(f"{' '.join(words)}: {process.returncode}\n{told}")


def go_on(item):
    """Put the project back to its place, and let an item go on there, in a child of this process: libraries are there."""
    import vqclip.motion
    import vqclip.pipeline
    import vqclip.sampling  # noqa: F401
    from vqclip.cli import main

    os.chdir("/")
    shutil.rmtree(PROJECT, ignore_errors=True)
    shutil.copytree(HERE / "project", PROJECT)
    os.chdir(PROJECT)
    if not item["go_on"]:
        return
    if not (child := os.fork()):
        os.environ |= ENV
        sys.argv = ["vqclip", *item["go_on"]]
        try:
            main()
        except SystemExit as ended:
            os._exit(ended.code or 0)
    if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"{item['go_on']}: {code}")


def stop(words, when, killed):
    """Run a command, and end it once `when` says so; return whether it was in time."""
    process = start(words)
    while process.poll() is None and not when():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL if killed else signal.SIGINT)
    told = process.communicate()[1].decode()
    if process.returncode not in (0, 130, -9):
        sys.exit(f"{' '.join(words)}: {process.returncode}\n{told}")
    return process.returncode == (-9 if killed else 130)


def make(name, item):
    """Make one item. A run is made in a folder of its own, and gets its name there."""
    own, words = PROJECT / "runs" / f".{name}", item["command"]
    alone = own if item["path"].startswith("runs/") else PROJECT / item["path"]
    words = words if alone is not own or "--runs" in words else [*words, "--runs", f"runs/.{name}"]
    while True:
        if "when" not in item or item["when"] is None:
            done(words)
            break
        if stop(words, item["when"], item.get("killed")):
            break
        print(name, "was too quick: once more")
        shutil.rmtree(alone)
    if alone is own:
        (made,) = own.iterdir()
        made.rename(PROJECT / item["path"])
        own.rmdir()
    if "then" in item:
        done(item["then"])


def project():
    """Make all of it."""
    shutil.rmtree(PROJECT, ignore_errors=True)
    write_inputs()
    for name, item in ITEMS.items():
        make(name, item)
        print(name, flush=True)
    done(["models", "import", "models/small-dalle", "--name", "imported"])
    house = ["generate", "a house", "--preset", "small", "--seed", "2", "--steps", "6", "--cutouts", "3"]
    done([*house, "--runs", "elsewhere", "--save-config", "settings/saved.toml", "-o", "pictures/house.png"])
    done(["generate", "--runs", "../elsewhere", "-o", "../pictures/by-hand.png"], PROJECT / "settings")
    shutil.rmtree(PROJECT / "elsewhere")
    done(["video", "runs/latents-7", "-o", "pictures/heart.mp4", "--fps", "4"])
    shutil.rmtree(HERE / "project", ignore_errors=True)
    shutil.copytree(PROJECT, HERE / "project", ignore=shutil.ignore_patterns("sheet.png"))


# ---- what they come to


def pixels(path):
    """Return a picture's pixels."""
    with Image.open(path) as picture:
        return numpy.asarray(picture.convert("RGB"))


def machine():
    """Return what decides about bytes."""
    told = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(line.split(":")[1].strip() for line in told if line.startswith("model name"))
    return {"cpu": cpu, "capability": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__.split("+")[0],
            "threads": torch.get_num_threads(), "python": platform.python_version()}  # fmt: skip


def expected():
    """Go on with each item in a copy, and write down what it comes to."""
    shutil.rmtree(HERE / "expected", ignore_errors=True)
    (HERE / "expected").mkdir()
    told = {}
    for name, item in ITEMS.items():
        go_on(item)
        ends = []
        for path in sorted(PROJECT.glob(item["pictures"])):
            copy = f"{name}-{path.stem}.png"
            Image.fromarray(pixels(path)).save(HERE / "expected" / copy, optimize=True)
            ends.append({"path": str(path.relative_to(PROJECT)), "copy": copy, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                         "pixels": hashlib.sha256(pixels(path).tobytes()).hexdigest()})  # fmt: skip
        metrics = {}
        for path in sorted(PROJECT.glob(f"{item['path']}/**/metrics.jsonl")):
            every = [json.loads(line) for line in path.read_text().splitlines()]
            metrics[str(path.relative_to(PROJECT))] = {
                "lines": len(every),
                "last": {k: v for k, v in every[-1].items() if k != "seconds"},
            }
        kept = {key: item[key] for key in ("path", "kind", "bundled", "command", "go_on")}
        told[name] = kept | {"stopped": bool(item.get("when")), "pictures": ends, "metrics": metrics}
        print(name, flush=True)
    record = {
        "release": "0.1.0",
        "commit": COMMIT,
        "project": str(PROJECT),
        "machine": machine(),
        "elsewhere": ELSEWHERE,
        "items": told,
    }
    (HERE / "expected.json").write_text(json.dumps(record, indent=1) + "\n")


# What compare printed: the largest mean difference of a picture, on the same processor.
ELSEWHERE = {
    "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2": {"float32": 0.00001, "bfloat16": 0.0904},
    "OMP_NUM_THREADS=2": {"float32": 0.00001, "bfloat16": 0.0674},
}


def compare(*names):
    """Go on with these items (or all) as this process's environment has it, say ATEN_CPU_CAPABILITY=avx2.

    Prints how far their pictures are from those of expected/: mean and largest difference, 0 to 1.
    """
    record = json.loads((HERE / "expected.json").read_text())
    for name, item in record["items"].items():
        if item["go_on"] and name in (names or ITEMS):
            go_on(item)
            for end in item["pictures"]:
                apart = numpy.abs(
                    pixels(PROJECT / end["path"]) / 255.0 - pixels(HERE / "expected" / end["copy"]) / 255.0
                )
                print(f"{name:<15} {end['copy']:<32} {apart.mean():.5f} {apart.max():.3f}", flush=True)


if __name__ == "__main__":
    {"project": project, "expected": expected, "compare": compare}[sys.argv[1]](*sys.argv[2:])
