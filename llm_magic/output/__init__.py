"""From an output type to a constraint that a server takes, and from its text to a value that validated here."""
