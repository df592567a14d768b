"""How the registry database came to its present tables: one revision per file in `versions`. Run by `model_registry/migration.py`."""
