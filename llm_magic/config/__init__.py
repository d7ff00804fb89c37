"""Configuration: the settings, which source of them wins, and what is in effect."""
