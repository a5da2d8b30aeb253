"""What tl.tune varies by default: the ``search_space`` of a class.

The name of an entry is an argument of the constructor, of ``train`` or of ``setup_anndata``; a dot leads into a
dictionary (``"plan_kwargs.lr"``). The value is a list of choices, or bounds: ``{"low": 1e-4, "high": 1e-2}`` with
``"log": True`` or ``"step"`` if wanted; whole numbers where both bounds are. A choice that is a dictionary sets several
arguments at once, for those that make sense together only. Of such choices, those remain that agree with the arguments
that the user fixes.
"""

from __future__ import annotations

from typing import Any

from agevi.model import MODELS

Space = dict[str, Any]


def default_space(model_cls: Any) -> Space:
    """What is varied for a class."""
    space = getattr(model_cls, "search_space", None)
    if space:
        return dict(space)
    known = ", ".join(cls.__name__ for cls in MODELS if cls.search_space)
    raise ValueError(
        f"{model_cls.__name__} has no default space; pass space={{'<argument>': [choices]}} (there are spaces for {known})."
    )
