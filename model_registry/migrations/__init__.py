"""How the registry database came to its present tables: a file per revision in `versions`. Run by `model_registry/migration.py`."""
