"""Continuous batching: many sequences of different length and age share each step of one model.

engine        the loop: admit, plan, step, sample, deliver
queue         the requests of any engine, from their arrival to their end
scheduler     which sequences may enter, and what the next step does; pure
sequence      one request's tokens, state and times
slots         which sequence holds which row of the KV arrays, and what is kept in the others
prefix_cache  what of finished rows may be reused, and what leaves first
kv            the KV arrays, paged by the operating system
runner        one step of an ONNX decoder on those arrays
jumps         which tokens of a decoding row are computed together; pure
draft         what an answer is expected to repeat
chat_prompts  messages, tools and reasoning effort as text
answer_form   what an answer must look like: its grammar, after its thought
intake        from a submitted request to a sequence
chooser       from logits to delivered tokens
logprobs      log probabilities, from the model's own logits
sampler       the choice of each row's next token
candidates    truncation of a distribution: top_k, top_p, min_p, typical_p
stop          the end of a text
"""
