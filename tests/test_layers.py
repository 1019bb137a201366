"""Who may import whom, and where a library lives. The source is read, not run, but for the tests about torch."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import vqclip

ROOT = Path(vqclip.__file__).parent
HEAVY = ("torch", "torchvision", "kornia", "open_clip", "taming", "timm")

# A module may import from the lines above its own, never sideways or down.
LAYERS = """
errors grads seeding reasons product
disk spelling
paths sizes
models.store models.formats models.hub
prompts losses augment keyframes intervals models.cards models.interfaces models.download
settings rowfiles precision
rundir outputs configs commands
records
images quantize cutouts camera flow
rows
manifest
ffmpeg timing captions
footage sound
report.tables report.sheet report.page
report
frames between video
models.architecture models.dalle.bart models.dalle.words
models.pickles models.flax models.layouts models.configfile
models.frozen models.towers models.torchscript models.hollow
models.weights models.taming models.openclip
models.convert models.dalle.checkpoints models.dalle.drawing
models.dalle
models.dalle.adopt
models.dalle_files
models.adopt
models models.install doctor
similarity wording
inits
candidates
latents optimize
film filming
checkpoint
session
samples stopwatch
memory together rank sampled
bench
sampling
reconstruct recording shots
story restyle
takes
driving resuming
pipeline motion opening
worker
engines.local engines.cluster
engines
batch
cli.options cli.progress
cli.transfer
cli.outcome cli.rowing cli.profiling
cli.moving cli.video
cli.story
cli.sample
cli.batch cli.page cli.generate cli.models cli.resume cli.rerun cli.settings cli.reconstruct cli.restyle cli.doctor
cli.bench
cli
__main__
""".strip().splitlines()

HOMES = {
    "imageio_ffmpeg": {"ffmpeg"},
    "jinja2": {"report.page"},
    "kornia": {"camera", "cutouts", "flow"},
    "ray": {"engines.cluster"},
    "httpx2": {"models.download", "models.hub"},
    "huggingface_hub": {"models.hub"},
    "open_clip": {"models.openclip"},
    "platformdirs": {"models.store"},
    "pydantic": {"settings"},
    "safetensors": {"models.taming", "models.weights", "models.convert", "checkpoint", "latents"},
    "taming": {"models.taming"},
    "tqdm": {"cli.progress", "cli.rowing", "cli.transfer"},
    "yaml": {"models.configfile", "rowfiles"},
    "typer": {
        "cli",
        "cli.batch",
        "cli.bench",
        "cli.doctor",
        "cli.generate",
        "cli.models",
        "cli.options",
        "cli.outcome",
        "cli.page",
        "cli.reconstruct",
        "cli.resume",
        "cli.rerun",
        "cli.restyle",
        "cli.sample",
        "cli.settings",
        "cli.story",
        "cli.video",
    },
}

TORCHLESS = [
    "vqclip",
    "vqclip.errors",
    "vqclip.prompts",
    "vqclip.grads",
    "vqclip.losses",
    "vqclip.augment",
    "vqclip.settings",
    "vqclip.rundir",
    "vqclip.outputs",
    "vqclip.models",
    "vqclip.models.cards",
    "vqclip.cli",
    "vqclip.cli.generate",
    "vqclip.manifest",
    "vqclip.film",
    "vqclip.footage",
    "vqclip.keyframes",
]


def name_of(path):
    """Return a file's module name inside the package; the package itself is the empty name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
MODULES = sorted(FILES)
BELOW = {name: depth for depth, line in enumerate(LAYERS) for name in line.split()}


def imported(name):
    """Return (own modules, other libraries) that a module imports anywhere, in functions and for types alike.

    `from . import __version__` is no import of the package's contents, and left out.
    """
    own, others = set(), set()
    package = name.split(".") if FILES[name].name == "__init__.py" and name else name.split(".")[:-1]
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join((["vqclip"] if node.level else []) + up + ([node.module] if node.module else []))
            targets = [(base, alias.name) for alias in node.names]
        else:
            continue
        for base, member in targets:
            if base.split(".")[0] != "vqclip":
                others.add(base.split(".")[0])
                continue
            inside = base.removeprefix("vqclip").removeprefix(".")
            child = f"{inside}.{member}".lstrip(".")
            if child in FILES:
                own.add(child)
            elif member != "__version__" or inside:
                own.add(inside)
    return own, others


def test_every_module_has_a_place_in_the_table():
    assert set(MODULES) - {""} == set(BELOW)


def test_no_module_stands_twice_in_the_table():
    assert len(BELOW) == sum(len(line.split()) for line in LAYERS)


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_imports_point_one_way(name):
    assert [other for other in sorted(imported(name)[0]) if BELOW.get(other, 99) >= BELOW.get(name, 99)] == []


def test_no_imports_go_round_in_circles():
    graphlib.TopologicalSorter({name: imported(name)[0] - {name} for name in MODULES}).prepare()


def test_the_package_itself_imports_nothing_when_it_is_imported():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    names = [alias.name for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    assert set(names) <= {"import_module", "TYPE_CHECKING", "Any"}


@pytest.mark.parametrize("library", sorted(HOMES))
def test_a_library_has_one_home(library):
    assert {name for name in MODULES if library in imported(name)[1]} == HOMES[library]


@pytest.mark.parametrize("library", ["click", "pickle", "pytorch_lightning"])
def test_nothing_imports(library):
    assert [name for name in MODULES if library in imported(name)[1]] == []


@pytest.mark.parametrize("name", ["losses", "grads", "models"])
def test_torch_is_imported_for_types_alone(name):
    tree = ast.parse(FILES[name].read_text())
    assert "torch" not in {
        part.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for part in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }


@pytest.mark.parametrize("module", TORCHLESS)
def test_importing_it_loads_no_torch(module):
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["utils", "util", "common", "helpers", "helper", "base", "misc"])
def test_no_file_is_called(name):
    assert [str(path) for path in ROOT.rglob("*") if path.stem == name] == []


@pytest.mark.parametrize("name", MODULES)
def test_a_file_has_at_most_250_lines(name):
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("name", MODULES)
def test_a_file_begins_by_saying_what_it_is(name):
    assert ast.get_docstring(ast.parse(FILES[name].read_text(encoding="utf-8")))
