"""A part of each kind for Fieldscope, which know plain colours and nothing else."""
