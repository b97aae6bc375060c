"""The routers, one protocol (`core.ports.Router`), and what makes any of them safe to ask."""
