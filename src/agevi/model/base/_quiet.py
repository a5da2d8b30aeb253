"""Training under agevi's own progress bar, without the notes of Lightning and scvi-tools."""

from __future__ import annotations

import contextlib
import logging
import signal
import warnings
from collections.abc import Iterator
from typing import Any

from lightning.pytorch.callbacks import ProgressBar

from agevi._compat.scvi import Callback
from agevi._progress import Bar, progress
from agevi._settings import LEVELS, quieter, settings
from agevi._threads import Shared

_LOGGERS = ("lightning.pytorch", "lightning.fabric", "scvi")
_MONITOR = "age_mae_validation"
_hidden = Shared()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide Lightning's lines on hardware and products, and the deprecations inside it; errors still show."""
    if _lets_through():
        yield
        return
    with _hidden.hold(_hide):
        yield


def _lets_through() -> bool:
    """Whether the user wants to hear what others say."""
    return settings.verbosity >= LEVELS.index("hint")


def _hide(stack: contextlib.ExitStack) -> None:
    """Levels of loggers and filters of warnings, put back when the stack is closed."""
    stack.enter_context(quieter(logging.ERROR, *_LOGGERS))
    stack.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", module=r"lightning\.")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")


@contextlib.contextmanager
def epochs_bar(name: str, max_epochs: int, kwargs: dict[str, Any]) -> Iterator[None]:
    """A bar over the epochs of a training in place of that of scvi-tools; changes the arguments of its trainer."""
    callbacks = [*(kwargs.get("callbacks") or ())]
    if any(isinstance(callback, ProgressBar) for callback in callbacks):
        yield  # the user brings one
        return
    with progress(max_epochs, name, "epochs", show=kwargs.get("enable_progress_bar", True)) as bar:
        kwargs |= {"enable_progress_bar": False, "callbacks": [*callbacks, _Epochs(bar)]}
        yield


class _Epochs(Callback):
    """Counts epochs, and says why training ended in place of a callback of scvi-tools that prints it."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Count the epochs of a training that goes on."""
        if trainer.is_global_zero and trainer.current_epoch:
            self.bar.step(trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Count, with the error on validation subjects."""
        if trainer.is_global_zero:
            found = trainer.callback_metrics.get(_MONITOR)
            self.bar.step(note="" if found is None else f"validation error {float(found):.2f}")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Say where training stopped early."""
        if trainer.is_global_zero and trainer.current_epoch < trainer.max_epochs:
            self.bar.end("stopped early")
        if not _lets_through():
            for callback in trainer.callbacks:
                if hasattr(callback, "early_stopping_reason"):
                    callback.early_stopping_reason = None


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt a training as it does any call; Lightning would end the process and ignore the key."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from None
