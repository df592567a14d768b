"""The gateway's database: its stores, one thread that writes, one that follows changes, snapshots to read from.

The composition root builds one `storage.Storage` and hands out its parts; routes use the stores and `snapshots`.
"""
