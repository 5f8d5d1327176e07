"""The networks: encoder, objectives, classifier. They receive plain values, never the parameter object."""
