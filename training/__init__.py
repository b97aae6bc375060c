"""How the embedded router's weights are made and measured. Not in the wheel."""
