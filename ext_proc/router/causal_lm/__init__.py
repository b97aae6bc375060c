"""Arch-Router, or any causal language model that takes its prompt, in this process with torch.

A decision is one forward pass. The prompt's constant half comes from a KV cache that is computed once
per configuration; what every possible answer begins with is forced into the prefill; and all that the
answers do not share rides along as a tree whose branches do not see each other. So every policy's exact
probability comes out of the pass that reads the conversation, and no answer can be invalid.
"""
