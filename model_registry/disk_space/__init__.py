"""Room on the disk of a home: what lies there, what may still be written, and what is removed to make room.

From outside, `home_disk.HomeDisk` is used, which a `Registry` has as `disk`, with the values of `limits` and `usage`, and the
contract of `candidates` for those who keep files of their own in a home.
"""
