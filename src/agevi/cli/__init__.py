"""The command line: ``agevi`` and ``python -m agevi``."""
