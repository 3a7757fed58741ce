"""The `tfbig` command."""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from tfbig.errors import InvalidOption, TfbigError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        The exit status: 0, or 2 after an error that the user can mend, or 130 after Ctrl-C; for `workers` that of
        the first that failed.
    """
    arguments = _parser().parse_args(argv)
    # This process is ours: TensorFlow's notes on its own start-up are not what was asked for.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _native_notes_kept():
            return arguments.run(arguments)
    except TfbigError as error:
        print(f"tfbig: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tfbig: interrupted; files that were complete are kept.", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _native_notes_kept() -> Iterator[None]:
    """Keeps what C++ code prints to standard error out of sight, and shows it only if something goes wrong.

    TensorFlow prints a page of notes on its own start-up that no setting silences. Python's own `sys.stderr`
    goes on reaching the terminal.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as notes, os.fdopen(os.dup(2), "w", buffering=1) as terminal:
        os.dup2(notes.fileno(), 2)
        python_stderr, sys.stderr = sys.stderr, terminal
        try:
            yield
        except BaseException as error:
            if not isinstance(error, TfbigError | KeyboardInterrupt | SystemExit):
                notes.seek(0)
                terminal.write(notes.read().decode(errors="replace"))
            raise
        finally:
            sys.stderr = python_stderr
            os.dup2(terminal.fileno(), 2)


def _parser() -> argparse.ArgumentParser:
    from tfbig import __version__

    parser = argparse.ArgumentParser(
        prog="tfbig", description="From data to a proven LiteRT file, with Keras 3 on TensorFlow."
    )
    parser.add_argument("--version", action="version", version=f"tfbig {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="run the whole road once on bundled data",
        description="Clean, split, train, cross-validate, prune to 80%, export, prove; write a report with pictures.",
    )
    demo.add_argument("--dataset", default="digits", help="digits (default), wine, breast_cancer or diabetes")
    demo.add_argument("--out", default="savedmodels", help="folder to write into (default: savedmodels)")
    demo.add_argument("--seed", type=int, default=0, help="seed of the split, the weights and the training")
    demo.add_argument("--quick", action="store_true", help="train for a third of the epochs, prune for half")
    demo.set_defaults(run=_demo)
    workers = commands.add_parser(
        "workers",
        help="run a script as several workers of one training, on this machine",
        description="Run a training script as N workers on this machine: its tfbig.fit line trains on all of them. "
        "Other machines start the script themselves; see examples/multi_worker.",
    )
    workers.add_argument("-n", type=int, default=2, metavar="N", help="workers (default: 2)")
    workers.add_argument(
        "--grace",
        type=float,
        default=15.0,
        metavar="SECONDS",
        help="how long the others may go on when one has failed, to say why (default: 15)",
    )
    workers.add_argument("-m", dest="module", action="store_true", help="run a module, as python -m does")
    workers.add_argument("script", help="the training script")
    workers.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script is given")
    workers.set_defaults(run=_workers)
    return parser


def _demo(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    with console.status("Starting TensorFlow"):
        from tfbig.demo import run_demo, table

    with _console_progress(console) as progress:
        report, folder = run_demo(
            arguments.dataset,
            out=arguments.out,
            seed=arguments.seed,
            quick=arguments.quick,
            progress=progress,
        )
    columns, rows = table(report)
    drawn = Table(
        title=f"{report.dataset}: held-out rows, scored by the files themselves", title_justify="left"
    )
    for i, column in enumerate(columns):
        drawn.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        drawn.add_row(*row)
    console.print(drawn)
    if report.agreement is not None:
        console.print(
            f"The int8 file agrees with the pruned Keras model on {report.agreement:.2%} of these rows."
        )
    console.print(f"{report.seconds:.0f} s. Everything is in {folder}/; open {folder}/report.html.")
    return 0


def _workers(arguments: argparse.Namespace) -> int:
    from tfbig.workers import run_workers

    script = ["-m", arguments.script] if arguments.module else [arguments.script]
    if not arguments.module and not os.path.isfile(arguments.script):
        raise InvalidOption(f"There is no script {arguments.script!r}.")
    return run_workers([sys.executable, *script, *arguments.arguments], arguments.n, grace=arguments.grace)


def _console_progress(console):
    """A `demo.Progress` that draws on the console: a bar for the stage at work, a line for each that is done."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from tfbig import demo

    class ConsoleProgress(demo.Progress):
        def __init__(self):
            columns = (
                TextColumn("  {task.description:27}"),
                BarColumn(30),
                TextColumn("{task.fields[note]}"),
            )
            self.bars = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)

        def __enter__(self):
            self.bars.start()
            return self

        def __exit__(self, *error):
            self.bars.stop()

        def stage(self, text: str, total: int = 0) -> None:
            self.name = text
            self.bar = self.bars.add_task(text, total=total or None, note="")

        def step(self, logs: Mapping[str, float] | None = None) -> None:
            logs = logs or {}
            shown = [name for name in ("loss", "accuracy", "mae", "val_loss") if name in logs]
            note = " ".join(f"{name} {logs[name]:.3f}" for name in shown)
            self.bars.update(self.bar, advance=1, note=note)

        def done(self, result: str) -> None:
            self.bars.remove_task(self.bar)
            self.bars.console.print(f"[green]✓[/green] {self.name:26} {result}", highlight=False)

    return ConsoleProgress()
