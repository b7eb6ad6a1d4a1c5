"""Outrider beside other engines: the same file, prompts and threads, in turn, in one run.

Measured for each format of SmolLM2, one request at a time, greedy:

- decode: generating N tokens with the end of text ignored, less generating 1 token of the same prompt just
  before. That leaves N - 1 steps of decoding, choosing the token included, whatever the engine does at the
  start of a request, and needs nothing of an engine but its public `generate`.
- prompt: generating 1 token after 512, or `--prompt-tokens`. Every engine may read 512 in one pass.
- speculation: decode again, with the speculation that the engine brings along, no second model got for it.
- clients N: N requests that come at once, each with a prompt of its own of 128 tokens: their tokens of output
  over the seconds until all are answered. Every engine batches them as its server does.

Prompts and outputs are token ids, so nobody tokenises. Prefix caches are off. Everything else is as the
engine ships it, so activations and K/V caches differ in precision, and greedy tokens may: the table says on
how many prompts they are Outrider's, which is information, not a test.

Every engine, and its speculation, is a process of its own that waits on a pipe while the others are measured:
no engine's libraries, thread pool or memory touches another's. Threads that wait for work by spinning get a
pause to give up in before the next engine's turn. What other processes used of the CPUs is reported, because
engines that spin lose a multiple of it.
"""
