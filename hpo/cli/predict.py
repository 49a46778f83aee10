"""The command that uses a finished model."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.arguments import Json, Threads
from hpo.cli.output import log_to_stderr
from hpo.errors import DataError, HpoError

if TYPE_CHECKING:
    import pandas as pd


def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle or results folder.")],
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT...", help="CSV files; images, or folders of images; .npy.")
    ],
    architecture: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:build",
            help="The code that builds a network of your own: the file that the study was searched with, or "
            "the bundle's copy.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to this file.", show_default="stdout")
    ] = None,
    as_json: Json = False,
    threads: Threads = 1,
) -> None:
    """Predict raw rows or images: a line of CSV, or an entry of JSON, for each.

    Each input row has one, also where it cannot be predicted: its note says why.
    """
    log_to_stderr()

    import torch

    from hpo.results.bundle import load_bundle

    torch.set_num_threads(threads)
    loaded = load_bundle(bundle, architecture)
    said = loaded.predict(inputs)
    left = said["predicted"].isna()
    if len(said) and left.all():
        raise DataError(f"no row can be predicted; the first: {_place(said)}{said['note'].iloc[0]}")
    text = _as_json(said, loaded.classes) if as_json else said.to_csv(index=False, lineterminator="\n")
    _write(text, out)
    if left.any():
        print(
            f"hpo: {left.sum()} of {len(said)} rows have no prediction; their note says why", file=sys.stderr
        )


def _place(said: "pd.DataFrame") -> str:
    """Where the first row stands; an image's note has its file."""
    first = said.iloc[0]
    return f"{first['file']}, line {first['line']}: " if said["line"].notna().iloc[0] else ""


def _as_json(said: "pd.DataFrame", classes: tuple[str, ...]) -> str:
    columns = [said[name].tolist() for name in ("file", "line", "predicted", "note")]
    probabilities = said[[f"p({name})" for name in classes]].to_numpy().tolist()
    rows = []
    for number, (file, line, predicted, note) in enumerate(zip(*columns, strict=True)):
        entry: dict[str, Any] = {"file": file, "predicted": predicted, "note": note}
        if isinstance(line, int):
            entry["line"] = line
        if classes:
            chances = dict(zip(classes, probabilities[number], strict=True))
            entry["probabilities"] = None if predicted is None else chances
        rows.append(entry)
    return json.dumps({"classes": list(classes), "predictions": rows}, ensure_ascii=False) + "\n"


def _write(text: str, out: Path | None) -> None:
    if out is None:
        print(text, end="")
        return
    beside = out.with_name(f".{out.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise HpoError(f"--out: {out}: cannot be written: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
