"""Continuous batching: many sequences of different length and age share each step of one model.

engine      the loop: admit, plan, step, sample, deliver
queue       the requests of any engine, from their arrival to their end
fair_queue  whose sequence gets the next free row
scheduler   which sequences are admitted, and what the next step computes; pure
sequence    one request's tokens, state and times
slots       which sequence holds which row of the KV arrays, and which finished rows are kept for their prefix
kv          the KV arrays, paged by the operating system
runner      one step of a decoder on those arrays
draft       what an answer is expected to repeat
intake      from a submitted request to a sequence
chooser     from logits to delivered tokens
sampler     the choice of each row's next token: penalties, truncation, draw, log probabilities
delivery    from a chosen token to text, or to the end of the answer
failures    how requests fail in any engine
"""
