from agevi import clocks as clocks
from agevi import datasets as datasets
from agevi import get as get
from agevi import io as io
from agevi import metrics as metrics
from agevi import model as model
from agevi import pl as pl
from agevi import pp as pp
from agevi import tl as tl
from agevi._report import report as report
from agevi._settings import settings as settings

__version__: str
