"""What the services do to the world: AWS, clock, logs, settings."""
