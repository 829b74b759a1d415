"""The engine: events in, commands out."""
