"""A fleet of replicas, simulated by discrete events from step times that were measured."""
