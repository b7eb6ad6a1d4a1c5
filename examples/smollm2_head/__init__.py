"""How SmolLM2's head was trained: on a GPU, in ten minutes, on text that SmolLM2 wrote there.

    python -m examples.smollm2_head --out DIR [--texts FILE]

The target writes conversations, thousands at a time; then the head learns from them, with the target's states
computed on the fly. `--resume` goes on from what an earlier run left in DIR.
"""
