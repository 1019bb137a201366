"""vqclip doctor: what to paste into a report."""

import json
from typing import Annotated

import typer

from ..errors import IntegrityError
from .progress import put, say


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Don't hash the models.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print versions, devices, memory, video encoders, and whether the models are sound; no home, no token."""
    from .doctor_report import examine

    found = examine(verify=not quick)
    if as_json:
        put(json.dumps(found, indent=2))
    else:
        for section, facts in found.items():
            say(section, to="stdout")
            for name, value in facts.items():
                say(f"  {name:<24} {value}", to="stdout")
    damaged = [name for name, state in found["models"].items() if state.startswith("DAMAGED")]
    if damaged:
        raise IntegrityError(f"damaged: {', '.join(damaged)}", "vqclip models verify NAME says what to do")
