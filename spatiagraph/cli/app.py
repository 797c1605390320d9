"""The commands, and what they have in common: one clear line on bad input, quiet libraries."""

import logging
import math
import os
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

import spatiagraph
from spatiagraph._reasons import reason
from spatiagraph.cli.colocalize import colocalize
from spatiagraph.cli.demo import demo
from spatiagraph.cli.doctor import doctor
from spatiagraph.cli.domains import domains
from spatiagraph.cli.embed import embed
from spatiagraph.cli.ending import (
    UNEXPECTED,
    Stopped,
    is_shortage,
    report_unexpected,
    shortage,
    stopped_cleanly,
)
from spatiagraph.cli.evaluate import evaluate
from spatiagraph.cli.fit import fit
from spatiagraph.cli.generate import generate
from spatiagraph.cli.index import index
from spatiagraph.cli.merge import merge
from spatiagraph.cli.morphology import morphology
from spatiagraph.cli.options import SlideOptions
from spatiagraph.cli.perturb import perturb
from spatiagraph.cli.prepare import prepare
from spatiagraph.cli.report import report
from spatiagraph.cli.search import search
from spatiagraph.cli.wording import in_one_line

# arguments of reading a slide, which messages of the library name as Python does; so do those of
# the command's own options
_OPTIONS = {field.name: isinstance(field.default, bool) for field in fields(SlideOptions)}
# typer brings a click of its own, or takes the one that is installed
_Refused: type[Exception] = typer.BadParameter.__mro__[2]

_LARGEST = 10**9


class _Command(TyperCommand):
    """Refuses numbers out of all proportion, and text that no file can hold."""

    def invoke(self, ctx: Any) -> Any:
        for param in self.params:
            value = ctx.params.get(param.name)
            hint = f"'{param.opts[0]}'"
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, float) and not math.isfinite(one):
                    raise typer.BadParameter(f"{one} is no finite number.", ctx, None, hint)
                if isinstance(one, int | float) and abs(one) > (_bound(param) or _LARGEST):
                    text = f"{one} is too large: at most {_LARGEST:,}."
                    raise typer.BadParameter(text, ctx, None, hint)
                if isinstance(one, str | Path) and not _is_unicode(str(one)):
                    text = ascii(str(one))[:200]
                    raise typer.BadParameter(
                        f"{text} is no UTF-8 text: rename it.", ctx, None, hint
                    )
        return super().invoke(ctx)


def _bound(param: Any) -> float | None:
    """What an option says by itself is the most, as seeds do."""
    of = param if hasattr(param, "max") else getattr(param, "type", None)
    return getattr(of, "max", None)


def _is_unicode(text: str) -> bool:
    """Check that text has no bytes of another encoding, which a name of a file may have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Commands(TyperGroup):
    """Turns whatever goes wrong into one line and an exit code that is not zero."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _show_warning
            try:
                with stopped_cleanly():
                    return super().invoke(ctx)
            except (typer.Exit, typer.Abort, _Refused):
                raise
            except Stopped as stop:
                typer.echo(str(stop), err=True)
                raise typer.Exit(stop.exit_code) from None
            except (ValueError, OSError, ImportError, MemoryError) as err:
                if ctx.params.get("debug"):
                    raise
                options = _options(self.commands.get(ctx.invoked_subcommand))
                typer.echo(f"error: {in_one_line(_text(err), options)}", err=True)
                raise typer.Exit(1) from err
            except Exception as err:
                if ctx.params.get("debug"):
                    raise
                if is_shortage(err):
                    typer.echo(f"error: {in_one_line(shortage(err), {})}", err=True)
                    raise typer.Exit(1) from err
                typer.echo(f"error: {report_unexpected(err)}", err=True)
                raise typer.Exit(UNEXPECTED) from err


def _options(command: Any) -> dict[str, bool]:
    """Arguments that messages name as Python does → whether their option is a flag."""
    own = [p for p in getattr(command, "params", ()) if p.param_type_name == "option"]
    return _OPTIONS | {str(option.name): bool(option.is_flag) for option in own}


def _text(err: BaseException) -> str:
    text = str(err) or type(err).__name__
    if isinstance(err, MemoryError):
        text = f"not enough memory: {reason(err)}"
    if isinstance(err, OSError) and err.strerror and err.filename:
        text = f"{err.strerror}: {err.filename}"
    return text


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    typer.echo(f"warning: {in_one_line(str(message), _OPTIONS)}", err=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"spatiagraph {spatiagraph.__version__}")
        raise typer.Exit


def _begin(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Cells, niches and tissue: from a slide to embeddings that can be searched.

    Start with `spatiagraph demo`. For a slide of your own: `fit` trains a model on it, `embed`
    writes embeddings of its cells, niches and regions to an .h5ad file, `search` finds niches like
    that of a cell, and `report` shows all of it on one page.
    """
    if "torch" not in sys.modules:
        # threads that wait for each other sleep instead of spinning: beside other programs a step
        # of training takes an eighth of the time
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("spatiagraph")
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)


app = typer.Typer(
    cls=_Commands,
    callback=_begin,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)
for command in (
    demo,
    doctor,
    prepare,
    fit,
    embed,
    domains,
    index,
    search,
    generate,
    morphology,
    colocalize,
    perturb,
    report,
    evaluate,
    merge,
):
    app.command(cls=_Command)(command)
