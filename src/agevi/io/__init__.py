"""Safe storage of clocks."""

from agevi.io._load import load_clock

__all__ = ["load_clock"]
