"""What crosses between the gateway and a worker: requests, events, messages, frames, errors. Plain values."""
