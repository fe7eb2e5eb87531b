"""The robots, one file each. A file in this folder is all that it takes; its weights lie in `domains/weights`."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
