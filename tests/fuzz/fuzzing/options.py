"""Every option of every command, with values that are wrong, extreme, or do not go together."""

import functools
import typing
from enum import Enum
from pathlib import Path

import typer

from spatiagraph.cli import app

PATH = ["nowhere.h5ad", "", ".", "/dev/null", "a\u202e\n.h5ad", "x" * 300, "file/inside.csv"]
TEXT = ["", "é\u202e", "x" * 5000, "a:b", "=1+1", "../../etc/passwd", "None", "a=b=c", "\n"]
NUMBER = ["x", "nan", "inf", "-inf", "-1", "0", "1e300", "-0.5", "9" * 40, "", "1,5", "0x10"]
WHOLE = ["x", "nan", "-1", "0", "1.5", "9" * 40, "-" + "9" * 40, "", "1e3", str(2**31), str(2**63)]
LONG_WORK = (
    "epochs",
    "cells",
    "steps",
    "seeds",
    "size_px",
    "max_cells",
    "domains",
    "genes",
    "draws",
)
"""Where a large number is allowed, and takes as long as it says."""
NEVER = ("nan", "inf", "-inf", "x", "")
"""What no option of a number takes."""
_BASES = {
    "prepare": ["{slide.h5ad}", "--out", "{out}/clean.h5ad"],
    "fit": ["{slide.h5ad}", "--out", "{out}/run", "--epochs", "1", "--channels", "8"],
    "embed": ["{model}", "{slide.h5ad}", "--out", "{out}/embedded.h5ad"],
    "search": ["{embedded.h5ad}", "--cell", "cell3", "--out", "{out}/hits.csv"],
    "evaluate": ["{embedded.h5ad}", "--domains", "niche", "--seeds", "1", "--protocol", "domains"],
    "domains": ["{embedded.h5ad}", "--k", "3", "--method", "kmeans", "--out", "{out}/domains.h5ad"],
    "report": ["{embedded.h5ad}", "--out", "{out}/report.html", "--domains", "3"],
    "morphology": ["{slide.h5ad}", "--out", "{out}/morphology", "--epochs", "1"],
    "generate": ["{embedded.h5ad}", "--out", "{out}/images", "--transition", "A:B"],
    "demo": ["--cells", "100", "--epochs", "1", "--out", "{out}/demo"],
    "colocalize": ["{xenium}", "--out", "{out}/pairs", "--draws", "1", "--min-counts", "5"],
    "perturb": ["{model}", "{slide.h5ad}", "--types", "state", "--first", "A", "--second", "B"]
    + ["--out", "{out}/pairs"],
    "merge": ["{out}/cohort.zarr"],
    "index": ["{slide.h5ad}", "--out", "{out}/index"],
    "doctor": [],
}
WRITTEN = ("clean.h5ad", "run", "embedded.h5ad", "hits.csv", "report.html", "morphology", "images")
WRITTEN += ("demo", "hits.png", "index", "domains.h5ad", "pairs")
"""What a command may leave if it succeeds, and, as a folder of a run, if it stopped on the way."""
_CONDITIONS = [
    "area >",
    "ara > 3",
    "state == 3",
    "area > 'x'",
    "x.to_csv('f')",
    "(" * 999,
    "@a > 1",
]
_TOGETHER = [
    ["search", "--query", "{embedded.h5ad}", "--modality", "image"],
    ["search", "--model", "{model}"],
    ["search", "--region", "0,0,1"],
    ["search", "--region", "nan,0,1,1"],
    ["search", "--region", "0,0,inf,1e300"],
    ["search", "--region", "{image.png}"],
    ["search", "--region", "{model}"],
    ["search", "--niche", "niche"],
    ["search", "--color", "area"],
    ["search", "--gallery", "{out}/hits.txt"],
    ["search", "--save-index", "{model}"],
    *(["search", "--where", condition] for condition in _CONDITIONS),
    ["fit", "--image", "{image.png}", "--no-image"],
    ["fit", "--image", "{image.png}", "--image", "{image.png}"],
    ["fit", "--image", "{model}"],
    ["fit", "--image", "{slide.h5ad}", "--image-mpp", "1"],
    ["fit", "--preset", "small"],
    ["fit", "--classify", "niche"],
    ["fit", "--classify", "nowhere", "--model", "spatia"],
    ["fit", "--mpp", "0.5", "--pitch-um", "100"],
    ["fit", "--out", "{model}"],
    ["fit", "--spatial-key", "X_pca"],
    ["embed", "--device", "meta"],
    ["embed", "--device", "cuda:9"],
    ["embed", "--device", "xla"],
    ["embed", "--out", "{model}"],
    ["embed", "--out", "{out}/a.zarr"],
    ["evaluate", "--embedding", "spatial"],
    ["evaluate", "--domains", "area"],
    ["evaluate", "--domains", "edge", "--types", "edge", "--protocol", "types"],
    ["evaluate", "--image-embedding", "X_pca"],
    ["evaluate", "--out", "{out}/a.txt"],
    ["report", "--run", "{model}"],
    ["report", "--labels", "area"],
    ["report", "--unlabelled", "A"],
    ["generate", "--generator", "{model}"],
    ["generate", "--states", "area"],
    ["generate", "--transition", "A"],
    ["generate", "--transition", ":"],
    ["generate", "--transition", "A:A"],
    ["prepare", "--out", "{out}/a.txt"],
    ["prepare", "--image", "{region.geojson}", "--image-mpp", "1"],
    ["doctor", "--cells", "5"],
]


def parameters():
    """Command → its parameters, as their name, type and declaration."""
    found = {}
    for command in app.registered_commands:
        hints = typing.get_type_hints(command.callback, include_extras=True)
        found[command.callback.__name__] = [
            (name, *typing.get_args(hint))
            for name, hint in hints.items()
            if typing.get_origin(hint) is typing.Annotated
        ]
    return found


@functools.cache
def choices():
    """Every wrong command line, as arguments, names a message could give, and what is certain."""
    found = [
        (*_split(words), [word for word in words if word.startswith("--")], False)
        for words in _TOGETHER
    ]
    for command, named in parameters().items():
        for name, kind, declared in named:
            one, many = _plain(kind)
            for value in _values(name, one):
                if isinstance(declared, typer.models.ArgumentInfo):
                    rest = [w for w in _BASES[command] if not w.startswith("{")]
                    words = [value, *(rest or _BASES[command][1:])]
                    found.append((command, words, [name, *([value] if value else [])], False))
                    continue
                option = next(iter(declared.param_decls or []), f"--{name.replace('_', '-')}")
                words = [*_BASES[command], option, *([] if value is None else [value] * many)]
                certain = one in (int, float) and value in NEVER
                found.append((command, words, [option, name, *([value] if value else [])], certain))
    return found


def _plain(kind):
    """The type of one value of an option, and how many it takes."""
    options = [t for t in (typing.get_args(kind) or [kind]) if t is not type(None)]
    if typing.get_origin(kind) in (list, tuple):
        return options[0], len(options)
    return _plain(options[0]) if options != [kind] else (kind, 1)


def _split(words):
    return words[0], [*_BASES[words[0]], *words[1:]]


def _values(name, kind):
    if kind is bool:
        return [None]
    if kind is int:
        large = name in LONG_WORK
        return [v for v in WHOLE if not (large and v in (str(2**31), str(2**63), "9" * 40))]
    if kind is float:
        return NUMBER
    if issubclass(kind, Enum):
        return ["", "wrong", "é" * 50]
    return PATH if kind is Path else TEXT


def written_out(words, bases, out):
    """Arguments with the paths of the bases and of the place to write to."""
    replaced = []
    for word in words:
        if word.startswith("{out}"):
            word = f"{out}{word[5:]}"
        elif word.startswith("{"):
            word = str(bases / word[1:-1])
        replaced.append(word)
    return replaced
