"""The engine: requests, scheduling, and the step that drafts, verifies and commits."""
