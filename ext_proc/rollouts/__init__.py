"""Rollouts outside of the pure core: where they are kept, who drives them, whom they tell."""
