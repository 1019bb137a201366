"""Write the man page and the completion scripts that the wheel brings. Run it before a release, and after new commands.

python examples/packaging/share/write.py
"""

from pathlib import Path

from typer._completion_shared import get_completion_script

from vqclip import __version__
from vqclip.cli.completion_table import make_table
from vqclip.config.completion import VARIABLE

HERE = Path(__file__).parent
SCRIPTS = {
    "bash": "bash-completion/completions/vqclip",
    "zsh": "zsh/site-functions/_vqclip",
    "fish": "fish/vendor_completions.d/vqclip.fish",
}


def completion_script(shell: str) -> str:
    """Return a shell's script; zsh's is to be loaded by itself, and begins with what it completes."""
    script = get_completion_script(prog_name="vqclip", complete_var=VARIABLE, shell=shell)
    return f"{script.strip()}\n"


def man_page() -> str:
    """Return the man page: what it does, and each command with its options."""
    tree = make_table()["commands"]
    lines = [
        f'.TH VQCLIP 1 "" "vqclip {__version__}" "User Commands"',
        ".SH NAME",
        r"vqclip \- text to image with VQGAN+CLIP",
        ".SH SYNOPSIS",
        r".B vqclip",
        r".I COMMAND",
        "[options]",
        ".SH DESCRIPTION",
        "A prompt becomes an image: an optimisation loop moves the latent of a VQGAN until CLIP sees the prompt in",
        "what is decoded from it. The bundled models need no download. Results go to stdout, all talk to stderr.",
        ".SH COMMANDS",
    ]
    for name, command in tree["commands"].items():
        lines += _command(name, command)
    lines += [".SH SEE ALSO", r".B vqclip COMMAND \-\-help"]
    return "\n".join(lines) + "\n"


def _command(name: str, command: dict) -> list[str]:
    lines = [f'.SS "vqclip {name}"', _plain(command["help"])]
    for option, about in command["options"].items():
        if option.startswith("--"):
            lines += [".TP", rf".B {_plain(option)}", _plain(about["help"])]
    for below, each in command["commands"].items():
        lines += _command(f"{name} {below}", each)
    return lines


def _plain(text: str) -> str:
    """Return text as troff reads it literally."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("\n", " ")
    return rf"\&{text}" if text[:1] in ".'" else text or r"\&"


def main() -> None:
    """Write the files."""
    files = {HERE / path: completion_script(shell) for shell, path in SCRIPTS.items()}
    for path, text in (files | {HERE / "man/man1/vqclip.1": man_page()}).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
