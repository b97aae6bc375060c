"""A whole mesh on one machine: real Envoy, the real server, stand-in models. For the demo and the tests."""
