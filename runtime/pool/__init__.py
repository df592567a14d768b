"""Models in memory: which are loaded, which may stay, which wait, and on how many cores each computes.

The gateway uses `model_pool`, the values that it takes and gives (`loaded_model`, `lease`, `generation`, `capacity`, `memory`), and
`local` with `watchdog`: workers as processes of this machine, behind the protocols of `handle`.
"""
