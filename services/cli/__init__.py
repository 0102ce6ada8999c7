"""The command `avesa`: builds the adapters and hands them in."""
