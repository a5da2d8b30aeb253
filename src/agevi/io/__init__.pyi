from agevi.io._load import load_clock as load_clock
from agevi.io._shelf import list_shelf as list_shelf
from agevi.io._shelf import write_shelf as write_shelf
from agevi.io._verify import verify as verify
from agevi.io._write_store import write_store as write_store
