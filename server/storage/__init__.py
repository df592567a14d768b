"""The gateway's database: its stores, one thread that writes, one that follows changes, snapshots to read from."""
