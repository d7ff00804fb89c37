"""Several models side by side: one prompt, a run for each model, and what they answered."""
