"""The operations of a model: the interface, and one implementation a backend."""
