"""What this machine has: processors, memory, execution providers, and the software that drives them.

From outside, `provider_directory`, `placement`, `execution_provider`, `installation`, `hardware` and `child_environment` are used.
"""
