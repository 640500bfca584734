"""The nouns of the imaging workflow: what is asked for, and what a Modality reports having done."""
