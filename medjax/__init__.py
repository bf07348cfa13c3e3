"""medjax: a JAX toolkit for trustworthy medical imaging.

Import what you need by its room, for example `from medjax.pet import em` or `from medjax.ivim import fit`; this module
imports nothing, so that `import medjax` and `medjax --help` answer at once.
"""

__version__ = "0.1.0"
