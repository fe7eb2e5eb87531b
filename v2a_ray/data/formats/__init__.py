"""How datasets are stored: one module per format, imported when used; `registry.py` lists them."""
