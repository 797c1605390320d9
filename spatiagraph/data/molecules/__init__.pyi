from .outlines import CellOutlines as CellOutlines
from .store import Molecules as Molecules
from .table import MoleculeBatch as MoleculeBatch
from .table import MoleculeTable as MoleculeTable
from .table import find_molecules as find_molecules
